package sheaf_test

import (
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

func TestOrigin(t *testing.T) {
	same := [][2]string{
		{"s3://photos/2022/", "s3://photos/2023/a.jpg"}, {"s3://photos", "s3://photos/"}, {"https://a.org/x", "https://a.org/y/z"},
		{"file:///a", "file:///b"}, {"file:///a", ""},
	}
	for _, x := range same {
		if sheaf.Origin(x[0]) != sheaf.Origin(x[1]) {
			t.Errorf("%s and %s differ", x[0], x[1])
		}
	}
	other := [][2]string{{"s3://photos/", "s3://photo/"}, {"s3://a/", "https://a/"}, {"car:///a.car", "car:///b.car"}, {"s3://a/", "file:///a"}}
	for _, x := range other {
		if sheaf.Origin(x[0]) == sheaf.Origin(x[1]) {
			t.Errorf("%s and %s are the same", x[0], x[1])
		}
	}
	if got := sheaf.Origin("s3://photos/"); len(got) != 16 {
		t.Errorf("%q", got)
	}
}

package containerd

import (
	"strings"
	"testing"

	"github.com/sheaf-run/agent/sheaf"
)

func TestCredentials(t *testing.T) {
	for _, c := range []struct{ text, domain, user, password string }{
		{"", "r.example", "", ""},
		{" ann:pass:word\n", "r.example", "ann", "pass:word"},
		{`{"auths":{"https://R.example/v2/":{"auth":"YW5uOnBhc3M="}}}`, "r.example", "ann", "pass"},
		{`{"auths":{"https://index.docker.io/v1/":{"username":"ann","password":"pass"}}}`, "docker.io", "ann", "pass"},
		{`{"auths":{"r.example:5000":{"identitytoken":"tok"},"r.example":{"auth":"YW5uOnBhc3M="}},"credsStore":"x"}`, "r.example:5000", "", "tok"},
	} {
		got, err := parseCredentials([]byte(c.text), c.domain)
		if err != nil || got != (credentials{c.user, c.password}) {
			t.Errorf("%q for %s is %+v, %v", c.text, c.domain, got, err)
		}
	}
	for _, text := range []string{"hunter2hunter2", ":hunter2", `{"auths":{"other":{"auth":"aHVudGVyMg=="}}}`, `{"auths": hunter2`, `{"auths":{"r.example":{"auth":"hunter2!"}}}`, `{"auths":{"r.example":{"auth":"aHVudGVyMg=="}}}`} {
		_, err := parseCredentials([]byte(text), "r.example")
		if sheaf.ClassOf(err) != sheaf.Invalid || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVud") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

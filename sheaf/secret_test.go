package sheaf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

func TestSecretsDoNotShowThemselves(t *testing.T) {
	s := NewSecret([]byte("hunter2hunter2"))
	holder := struct {
		Name  string
		Value Secret
		At    *Secret
		Keyed map[string]Secret
	}{"n", s, &s, map[string]Secret{"k": s}}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("text", "s", s, "at", &s, "holder", holder)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "s", s, "at", &s, "holder", holder)
	shown := []string{log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %[1]v"} {
		shown = append(shown, fmt.Sprintf(verb, s), fmt.Sprintf(verb, &s), fmt.Sprintf(verb, holder))
	}
	b, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	shown = append(shown, string(b), fmt.Errorf("x: %w", &Error{Msg: s.String()}).Error())
	for _, text := range shown {
		for _, form := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2"), "104 117 110", "aHVudGVy", "0x68, 0x75"} {
			if strings.Contains(text, form) {
				t.Errorf("%q shows the secret", text)
			}
		}
	}
	if !strings.Contains(shown[0], "(redacted)") || string(s.Reveal()) != "hunter2hunter2" {
		t.Errorf("log is %s", shown[0])
	}
}

func TestGrants(t *testing.T) {
	for _, c := range []struct {
		patterns []string
		job      string
		want     bool
	}{
		{nil, "a", false}, {[]string{"*"}, "a.b-c_1", true}, {[]string{"train-*"}, "train-7", true}, {[]string{"train-*"}, "retrain-7", false},
		{[]string{"a", "b"}, "b", true}, {[]string{"a"}, "ab", false}, {[]string{"["}, "[", false}, {[]string{"["}, "a", false}, {[]string{"job-?"}, "job-12", false},
	} {
		if got := GrantedTo(c.patterns, c.job); got != c.want {
			t.Errorf("GrantedTo(%q, %q) = %v", c.patterns, c.job, got)
		}
	}
}

func TestSecretNames(t *testing.T) {
	j := Job{
		Task:   Task{Secrets: []TaskSecret{{Name: "b"}, {Name: "a"}, {Name: "b"}}, Config: map[string]any{RegistrySecret: "r", "image": "i"}},
		Reduce: &Reduce{Task: Task{Secrets: []TaskSecret{{Name: "c"}, {Name: "a"}}, Config: map[string]any{RegistrySecret: 1.0}}},
	}
	if got := j.SecretNames(); !slices.Equal(got, []string{"b", "a", "r", "c"}) {
		t.Errorf("it uses %v", got)
	}
	if got := (&Job{}).SecretNames(); len(got) != 0 {
		t.Errorf("nothing uses %v", got)
	}
}

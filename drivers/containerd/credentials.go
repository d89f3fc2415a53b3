package containerd

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// credentials are what a registry is told; the zero value is nobody in particular.
type credentials struct{ user, password string }

// dockerConfig is the part of a docker config.json that holds credentials.
type dockerConfig struct {
	Auths map[string]struct {
		Auth          string `json:"auth"` // base64 of user:password
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
	} `json:"auths"`
}

// errCredentials says what is wrong without saying what they are.
func errCredentials(msg string) error {
	return &sheaf.Error{Class: sheaf.Invalid, Field: "config." + sheaf.RegistrySecret, Msg: msg, Hint: "store user:password, or the JSON of a docker config that has the registry"}
}

// parseCredentials reads what a secret says for the registry of a domain.
func parseCredentials(text []byte, domain string) (credentials, error) {
	s := strings.TrimSpace(string(text))
	if s == "" {
		return credentials{}, nil
	}
	if !strings.HasPrefix(s, "{") {
		return userPassword(s)
	}
	var conf dockerConfig
	if json.Unmarshal([]byte(s), &conf) != nil { // its error may quote what is secret
		return credentials{}, errCredentials("the registry's secret is no JSON of a docker config")
	}
	for name, a := range conf.Auths {
		if registryOf(name) != registryOf(domain) {
			continue
		}
		switch {
		case a.IdentityToken != "":
			return credentials{password: a.IdentityToken}, nil // without a user it is a token to refresh by
		case a.Auth != "":
			b, err := base64.StdEncoding.DecodeString(a.Auth)
			if err != nil {
				return credentials{}, errCredentials("the registry's secret has an auth that is not base64")
			}
			return userPassword(strings.TrimRight(string(b), "\x00"))
		case a.Username != "":
			return credentials{a.Username, a.Password}, nil
		}
	}
	return credentials{}, errCredentials("the registry's secret has nothing for " + domain)
}

func userPassword(s string) (credentials, error) {
	user, password, ok := strings.Cut(s, ":")
	if !ok || user == "" {
		return credentials{}, errCredentials("the registry's secret is not user:password")
	}
	return credentials{user, password}, nil
}

// registryOf is the domain in a key of a docker config, which may be a URL; the hub has several names.
func registryOf(key string) string {
	if _, rest, ok := strings.Cut(key, "://"); ok {
		key = rest
	}
	key, _, _ = strings.Cut(key, "/")
	switch key {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return strings.ToLower(key)
}

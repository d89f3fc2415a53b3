package sheaf

import "time"

// DefaultNamespace always exists.
const DefaultNamespace = "default"

// AnonymousPolicy is the name of the policy that applies to who shows no token.
const AnonymousPolicy = "anonymous"

// Namespace keeps the jobs of some from the eyes of others.
type Namespace struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Modified    uint64 `json:"modified,omitempty"` // index of the log
}

// Policy is a named list of what its holders may do.
type Policy struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Rules       string `json:"rules,omitempty"` // HCL; lists leave it out
	Modified    uint64 `json:"modified,omitempty"`
}

// TokenType says how far a token reaches.
type TokenType string

// The types of tokens.
const (
	TokenClient     TokenType = "client"     // what its policies say
	TokenManagement TokenType = "management" // everything, tokens and policies included
)

// Token is a token without its secret. The accessor names it and gives no right.
type Token struct {
	Accessor string     `json:"accessor"`
	Name     string     `json:"name,omitempty"`
	Type     TokenType  `json:"type"`
	Policies []string   `json:"policies,omitempty"`
	Created  time.Time  `json:"created"`
	Expires  *time.Time `json:"expires,omitempty"` // never, if missing
}

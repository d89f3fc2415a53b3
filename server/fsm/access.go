package fsm

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/sheaf-run/agent/server/state"
	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of what says who may do what. All of it is in memory and in every snapshot.
const (
	maxPolicies    = 1000
	maxNamespaces  = 1000
	maxTokens      = 10_000
	maxPerToken    = 64   // policies; they are joined whenever one has changed
	maxDescription = 256  // bytes; a line
	reapTokens     = 1000 // at once, so that no entry takes long
)

// writeACL changes policies and tokens. What cannot all be done is not begun: the
// transaction of a refused command is dropped.
func (s *step) writeACL(c *WriteACL) error {
	if c.Bootstrap {
		if err := s.mayBootstrap(c); err != nil {
			return err
		}
		s.SetACLBootstrap()
	}
	for _, p := range c.PutPolicies {
		if err := s.putPolicy(p); err != nil {
			return err
		}
	}
	for _, name := range c.DeletePolicies {
		p := s.Policy(name)
		if p == nil {
			return refuse(sheaf.NotFound, "there is no policy %q", name)
		}
		s.DeletePolicy(p)
	}
	for _, t := range c.PutTokens {
		if err := s.putToken(t); err != nil {
			return err
		}
	}
	for _, accessor := range c.DeleteTokens {
		t := s.Token(accessor)
		if t == nil {
			return refuse(sheaf.NotFound, "no token has the accessor %q", accessor)
		}
		s.DeleteToken(t)
	}
	if c.ReapExpired {
		s.reapExpired()
	}
	return nil
}

func (s *step) mayBootstrap(c *WriteACL) error {
	if len(c.PutTokens) != 1 || !c.PutTokens[0].Management || c.PutTokens[0].ExpiresMs != 0 {
		return refuse(sheaf.Invalid, "the first token is one management token that does not expire")
	}
	if at := s.ACLBootstrap(); at != 0 && at != c.ResetIndex {
		return &sheaf.Error{
			Class: sheaf.Conflict, Msg: fmt.Sprintf("the first token was made already (reset index %d)", at),
			Hint: fmt.Sprintf("if it is lost: write %d into the file server/acl-bootstrap-reset in the leader's data directory, and do this again", at),
		}
	}
	return nil
}

func (s *step) putPolicy(c *ACLPolicy) error {
	if err := sheaf.CheckName("policy", c.Name); err != nil {
		return err
	}
	if err := checkDescription(c.Description); err != nil {
		return err
	}
	if s.Policy(c.Name) == nil && s.Policies() >= maxPolicies {
		return &sheaf.Error{Class: sheaf.TooLarge, Field: "policy", Msg: "there are too many policies", Limit: fmt.Sprint(maxPolicies), Hint: "delete some, or join them"}
	}
	s.PutPolicy(&state.Policy{Name: c.Name, Description: c.Description, Rules: c.Rules})
	return nil
}

func (s *step) putToken(c *ACLToken) error {
	if err := sheaf.CheckName("accessor", c.Accessor); err != nil {
		return err
	}
	if err := checkDescription(c.Name); err != nil {
		return err
	}
	t := &state.Token{Accessor: c.Accessor, Name: c.Name, Management: c.Management, Policies: c.Policies, CreatedMs: s.TimeMs(), ExpiresMs: c.ExpiresMs}
	if n := copy(t.Secret[:], c.SecretSha256); n != len(t.Secret) || len(c.SecretSha256) != n {
		return refuse(sheaf.Invalid, "the digest of a token's secret has %d bytes", len(c.SecretSha256))
	}
	switch {
	case s.Token(t.Accessor) != nil || s.TokenBySecret(t.Secret) != nil:
		return refuse(sheaf.Conflict, "this token exists")
	case t.Expired(s.TimeMs()):
		return &sheaf.Error{Class: sheaf.Invalid, Field: "expires", Msg: "the token would have expired before it was made", Hint: "give a time to come"}
	case t.Management && len(t.Policies) > 0:
		return &sheaf.Error{Class: sheaf.Invalid, Field: "policies", Msg: "a management token has no policies: it may do everything"}
	case !t.Management && len(t.Policies) == 0:
		return &sheaf.Error{Class: sheaf.Invalid, Field: "policies", Msg: "a token without policies may do nothing", Hint: "name its policies, or make it of type management"}
	case len(t.Policies) > maxPerToken:
		return &sheaf.Error{Class: sheaf.TooLarge, Field: "policies", Msg: fmt.Sprintf("the token has %d policies", len(t.Policies)), Limit: fmt.Sprint(maxPerToken)}
	case len(s.Tokens()) >= maxTokens:
		return &sheaf.Error{Class: sheaf.TooLarge, Field: "token", Msg: "there are too many tokens", Limit: fmt.Sprint(maxTokens), Hint: "delete some, or let new ones expire"}
	}
	for _, name := range t.Policies {
		if s.Policy(name) == nil {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "policies", Msg: fmt.Sprintf("there is no policy %q", name), Hint: "`agent acl policy list` shows those there are"}
		}
	}
	s.PutToken(t)
	return nil
}

func (s *step) reapExpired() {
	reaped := 0
	for _, t := range s.Tokens() {
		if t.Expired(s.TimeMs()) && reaped < reapTokens {
			s.DeleteToken(t)
			reaped++
		}
	}
}

func (s *step) writeNamespace(c *WriteNamespace) error {
	if err := sheaf.CheckName("namespace", c.Name); err != nil {
		return err
	}
	if err := checkDescription(c.Description); err != nil {
		return err
	}
	old := s.Namespace(c.Name)
	switch {
	case c.Delete && c.Name == sheaf.DefaultNamespace:
		return &sheaf.Error{Class: sheaf.Conflict, Field: "namespace", Msg: "the default namespace cannot be deleted"}
	case c.Delete && old == nil:
		return &sheaf.Error{Class: sheaf.NotFound, Field: "namespace", Msg: fmt.Sprintf("there is no namespace %q", c.Name)}
	case c.Delete:
		return s.deleteNamespace(old)
	case old == nil && s.Namespaces() >= maxNamespaces:
		return &sheaf.Error{Class: sheaf.TooLarge, Field: "namespace", Msg: "there are too many namespaces", Limit: fmt.Sprint(maxNamespaces)}
	}
	s.PutNamespace(&state.Namespace{Name: c.Name, Description: c.Description})
	return nil
}

// deleteNamespace takes the secrets and the runs that are over with it: whoever makes a
// namespace of that name later is not to find them.
func (s *step) deleteNamespace(n *state.Namespace) error {
	runs := s.RunsIn(n.Name)
	for _, id := range runs {
		if r := s.Peek(id); !r.Status.Terminal() {
			return &sheaf.Error{Class: sheaf.Conflict, Field: "namespace", Msg: fmt.Sprintf("run %s in namespace %q is %s", id, n.Name, r.Status), Hint: "stop its runs first"}
		}
	}
	for _, id := range runs {
		if err := s.bury(s.Run(id)); err != nil { // whoever holds it goes too
			return err
		}
	}
	for _, x := range s.SecretsIn(n.Name) {
		s.DeleteSecret(x)
	}
	s.DeleteNamespace(n)
	return nil
}

// namespaceOf is a job's; jobs that came another way than by the jobspec may have none.
func namespaceOf(j *sheaf.Job) string {
	if j.Namespace == "" {
		return sheaf.DefaultNamespace
	}
	return j.Namespace
}

// checkDescription: a line of text, which terminals and pages show.
func checkDescription(text string) error {
	if len(text) > maxDescription {
		return &sheaf.Error{Class: sheaf.Invalid, Field: "description", Msg: fmt.Sprintf("the description has %d bytes", len(text)), Limit: fmt.Sprintf("%d bytes", maxDescription)}
	}
	for i, r := range text {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return &sheaf.Error{Class: sheaf.Invalid, Field: "description", Msg: fmt.Sprintf("the description may not hold %+q at byte %d", r, i)}
		}
	}
	return nil
}

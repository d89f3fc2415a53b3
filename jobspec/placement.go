package jobspec

import (
	"fmt"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// parallelism reads the parallelism block.
func (b *block) parallelism(p *sheaf.Parallelism) {
	b.whole("constant", &p.Constant)
	b.number("coefficient", &p.Coefficient)
	b.end()
}

func (c *checker) parallelism(p *sheaf.Parallelism) {
	switch {
	case (p.Constant != 0) == (p.Coefficient != 0):
		c.bad("parallelism", "parallelism takes exactly one of constant and coefficient", "", "write constant = 10, or coefficient = 0.5 (above 0)")
	case p.Constant != 0:
		c.whole("parallelism.constant", "constant", p.Constant)
	case !(p.Coefficient > 0 && p.Coefficient <= maxCoefficient):
		c.bad("parallelism.coefficient", fmt.Sprintf("coefficient is %g", p.Coefficient), fmt.Sprintf("above 0, to %g", maxCoefficient), "write how many partitions there may be for each node")
	}
}

// maxCoefficient is far above the partitions that a node can run at once.
const maxCoefficient = 1e6

// constraint reads a constraint block.
func (b *block) constraint() sheaf.Constraint {
	var x sheaf.Constraint
	b.condition(&x)
	b.end()
	return x
}

// affinity reads an affinity block.
func (b *block) affinity() sheaf.Affinity {
	x := sheaf.Affinity{Weight: defaultWeight}
	b.condition(&x.Constraint)
	b.whole("weight", &x.Weight)
	b.end()
	return x
}

func (b *block) condition(x *sheaf.Constraint) {
	b.template("attribute", &x.Attribute)
	b.text("operator", &x.Operator)
	b.template("value", &x.Value)
}

var operators = []string{"=", "!=", "<", "<=", ">", ">=", "regexp", "set_contains"}

func (c *checker) placement(j *sheaf.Job) {
	for i := range j.Constraints {
		c.condition(fmt.Sprintf("constraints[%d]", i), &j.Constraints[i])
	}
	for i := range j.Affinities {
		at := fmt.Sprintf("affinities[%d]", i)
		c.condition(at, &j.Affinities[i].Constraint)
		c.whole(at+".weight", "weight", j.Affinities[i].Weight)
	}
}

func (c *checker) condition(at string, x *sheaf.Constraint) {
	name, closed := strings.CutSuffix(strings.TrimPrefix(x.Attribute, "${"), "}")
	if !closed || !strings.HasPrefix(x.Attribute, "${") || !sheaf.IsNodeProperty(name) {
		c.bad(at+".attribute", fmt.Sprintf("attribute %s is none of a node", quoted(x.Attribute)), "",
			`write attribute = "${node.class}", or id, name, datacenter, region, attr.… or driver.… of a node`)
	}
	c.oneOf(at+".operator", "operator", x.Operator, operators...)
	c.text(at+".value", "value", x.Value)
	if _, err := sheaf.Expand(x.Value, func(name string) (string, bool) { return "", sheaf.IsNodeProperty(name) }); err != nil {
		c.bad(at+".value", fmt.Sprintf("value %s refers to more than the node", quoted(x.Value)), "", "only ${node.…} is known before a partition is placed")
	}
	if x.Operator == "regexp" {
		c.pattern(at+".value", "value", x.Value)
	}
}

// ops checks what a job that runs once on every node has no use for.
func (c *checker) ops(j *sheaf.Job) {
	if j.Split != nil {
		c.bad("split", `a job of type "ops" has no split: it runs once on every node that matches`, "", "leave split out, or write type = \"batch\"")
	}
	if j.Reuse {
		c.bad("reuse", `a job of type "ops" takes nothing over from earlier runs: its tasks are about the nodes`, "", "leave reuse out")
	}
	if j.Count > 1 {
		c.bad("count", fmt.Sprintf(`count is %d in a job of type "ops", which runs once on every node that matches`, j.Count), "", "leave count out")
	}
}

func (w *writer) parallelism(p *sheaf.Parallelism) {
	w.open("parallelism", "")
	w.whole("constant", p.Constant, 0)
	if p.Coefficient != 0 {
		w.arg("coefficient", number(p.Coefficient))
	}
	w.close()
}

func (w *writer) placement(j *sheaf.Job) {
	for _, x := range j.Constraints {
		w.open("constraint", "")
		w.condition(x)
		w.close()
	}
	for _, x := range j.Affinities {
		w.open("affinity", "")
		w.condition(x.Constraint)
		w.arg("weight", fmt.Sprint(x.Weight))
		w.close()
	}
}

func (w *writer) condition(x sheaf.Constraint) {
	w.arg("attribute", quoteTemplate(x.Attribute))
	w.text("operator", x.Operator, "=")
	w.arg("value", quoteTemplate(x.Value))
}

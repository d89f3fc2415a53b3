package plugin

import "time"

// AnswerWithin bounds a process' first answer, and not what goes before it.
func AnswerWithin(c *Config, d time.Duration) { c.answerTimeout = d }

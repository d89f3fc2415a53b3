// Package archtest holds rules about the whole tree as tests: who may import
// whom, what a commit may not contain, how long a file may grow.
package archtest

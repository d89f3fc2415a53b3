// Package sheaf is the domain: the nouns of the system, each in a file of its
// own, with the JSON forms that the HTTP API speaks. It imports the standard
// library only, does no input or output, and every other package may import it.
package sheaf

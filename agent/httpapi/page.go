package httpapi

import (
	"context"
	"encoding/base64"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// Bounds of a page.
const (
	defaultPerPage = 100
	maxPerPage     = 10_000 // a page of stubs stays near a megabyte
)

// PageParams are the query parameters that every list understands.
type PageParams struct {
	PerPage   int    `query:"per_page" minimum:"0" maximum:"10000" doc:"items a page, 100 unless told"`
	NextToken string `query:"next_token" maxLength:"256" doc:"as X-Sheaf-NextToken gave it"`
	Filter    string `query:"filter" doc:"HCL expression over the items' fields"`
	Prefix    string `query:"prefix" maxLength:"64" doc:"of the item's ID"`
	Reverse   bool   `query:"reverse" doc:"descending order"`
}

// token makes the next page's token of the key where it begins.
func token(key string) string { return base64.RawURLEncoding.EncodeToString([]byte("k:" + key)) }

func (p PageParams) from() (key string, err error) {
	if p.NextToken == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(p.NextToken)
	key, ok := strings.CutPrefix(string(b), "k:")
	if err != nil || !ok {
		return "", &sheaf.Error{Class: sheaf.Invalid, Field: "next_token", Msg: fmt.Sprintf("%q is no page token", p.NextToken), Hint: "give the one of the X-Sheaf-NextToken header, or none for the first page"}
	}
	return key, nil
}

// Page takes one page of items, which come in ascending order of key, and the token of the
// next page. Reverse collects the keys first, so it is for lists of runs and nodes. It ends with ctx: a filter over
// millions of items takes minutes, and who asked may be gone.
func Page[T any](ctx context.Context, p PageParams, items iter.Seq[T], key func(T) string) (page []T, next string, err error) {
	filter, err := ParseFilter(p.Filter)
	if err != nil {
		return nil, "", err
	}
	from, err := p.from()
	if err != nil {
		return nil, "", err
	}
	per := p.PerPage
	if per == 0 {
		per = defaultPerPage
	}
	if p.Reverse {
		all := slices.Collect(items)
		slices.Reverse(all)
		items = slices.Values(all)
	}
	page = []T{}
	for item := range items {
		if err := ctx.Err(); err != nil {
			return nil, "", &sheaf.Error{Class: sheaf.TimedOut, Msg: "the list was not finished", Err: err, Hint: "ask for less at a time, with per_page and prefix"}
		}
		k := key(item)
		if from != "" && (!p.Reverse && k < from || p.Reverse && k > from) || !strings.HasPrefix(k, p.Prefix) {
			continue
		}
		ok, err := filter.Match(item)
		if err != nil {
			return nil, "", err
		}
		if !ok {
			continue
		}
		if len(page) == min(per, maxPerPage) {
			return page, token(k), nil
		}
		page = append(page, item)
	}
	return page, "", nil
}

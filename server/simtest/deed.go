package simtest

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/sheaf-run/agent/data/publish"
	"github.com/sheaf-run/agent/sheaf"
)

// deed is product code that a client runs against the bucket. It runs by itself until it asks something of
// the bucket and waits; then the simulation goes on. So one thing happens at a time, in an order that the seed decides,
// as long as the code asks one thing at a time.
type deed struct {
	w      *world
	c      *client
	boot   int
	wanted func() bool // nil is for ever
	ctx    context.Context
	cancel context.CancelFunc
	asks   chan *ask
	ended  chan struct{} // closed when the code has, with err
	err    error
	ask    *ask // that waits for its answer
	done   func(error)
}

// ask is one request to the bucket.
type ask struct {
	effect func() error
	answer chan error
}

// tries of a request that fails, as the places of the product have it.
const tries = 3

var errUnanswered = &sheaf.Error{Class: sheaf.Unavailable, Msg: "the bucket did not answer"}

// do runs f until the client crashes. What is not wanted any more is told so by its context. done is called
// when f has ended, unless the client has crashed by then.
func (c *client) do(wanted func() bool, f func(context.Context, publish.Place) error, done func(error)) {
	d := &deed{w: c.w, c: c, boot: c.boot, wanted: wanted, asks: make(chan *ask), ended: make(chan struct{}), done: done}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	c.w.deeds = append(c.w.deeds, d)
	go func() {
		defer close(d.ended)
		d.err = f(d.ctx, d)
	}()
	d.next()
}

// crashed reports whether nobody is there to hear an answer.
func (d *deed) crashed() bool { return !d.c.alive || d.c.boot != d.boot }

// next waits for what the code asks, or its end.
func (d *deed) next() {
	w := d.w
	select {
	case d.ask = <-d.asks:
		effect, before, behind := d.ask.effect, w.latency(), w.latency()
		d.disturb(&before, &behind)
		w.after(before, func() { // whether or not the client is there still
			err := error(errUnanswered)
			if !w.bucket.silent {
				err = effect()
			}
			if !w.calm && w.chance(15) {
				err = errUnanswered
			}
			w.after(behind, func() { d.answered(err) })
		})
	case <-d.ended:
		d.cancel()
		w.deeds = slices.DeleteFunc(w.deeds, func(x *deed) bool { return x == d })
		if !d.crashed() {
			d.done(d.err)
		}
	}
}

// disturb lets the worst happen while a request is under way.
func (d *deed) disturb(before, behind *int64) {
	w := d.w
	if w.calm {
		return
	}
	switch w.rng.IntN(40) {
	case 0, 1: // the client crashes
		w.after(w.between(0, 30), func() {
			if !d.crashed() {
				w.crashClient(d.c)
			}
		})
	case 2, 3: // it stands still, for so long that it is given up and others have taken over
		stands, c := w.between(leaseMs, 4*leaseMs), d.c
		c.cutOff = true
		if c.stream != nil {
			c.stream.cut()
		}
		w.after(stands, func() { c.cutOff = false })
		if w.chance(2) {
			*before += stands
		} else {
			*behind += stands
		}
	case 4: // the bucket does not answer
		w.bucket.silent = true
		w.after(w.between(50, 2000), func() { w.bucket.silent = false })
	}
}

func (d *deed) answered(err error) {
	if d.crashed() || d.wanted != nil && !d.wanted() {
		d.cancel()
	}
	if d.ctx.Err() != nil {
		err = d.ctx.Err()
	}
	ask := d.ask
	d.ask = nil
	ask.answer <- err
	d.next()
}

// abandon ends the code, for the simulation is over.
func (d *deed) abandon() {
	d.cancel()
	if d.ask != nil {
		d.ask.answer <- context.Canceled
	}
	for {
		select {
		case x := <-d.asks:
			x.answer <- context.Canceled
		case <-d.ended:
			return
		}
	}
}

// request has something done at the bucket. What is not answered is asked again, as often as tries say.
func (d *deed) request(effect func() error) error {
	for try := 1; ; try++ {
		x := &ask{effect: effect, answer: make(chan error)}
		d.asks <- x
		if err := <-x.answer; try == tries || !errors.Is(err, errUnanswered) {
			return err
		}
	}
}

// Put uploads in parts: what is begun lies there until it is completed, or ended by somebody.
func (d *deed) Put(_ context.Context, o publish.Object, open func() (io.ReadCloser, error)) error {
	body, err := open()
	if err != nil {
		return err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	b, upload := d.w.bucket, 0
	if err := d.request(func() error { upload = b.begin(o.Name, d); return nil }); err != nil {
		return err
	}
	return d.request(func() error { return b.complete(upload, string(data)) })
}

// Get reads an object.
func (d *deed) Get(_ context.Context, name string) (data []byte, version string, err error) {
	err = d.request(func() error {
		x, ok := d.w.bucket.objects[name]
		if !ok {
			return &sheaf.Error{Class: sheaf.NotFound, Msg: "no object " + name}
		}
		data, version = []byte(x.data), x.version
		return nil
	})
	return data, version, err
}

// Replace puts an object where the version stands that is said.
func (d *deed) Replace(_ context.Context, name string, data []byte, version string) error {
	return d.request(func() error { return d.w.bucket.replace(name, string(data), version, d) })
}

// Clear lists, and then deletes one after the other what was listed: much may happen in between.
func (d *deed) Clear(_ context.Context, dir string, keep func(string, bool) bool) error {
	b := d.w.bucket
	var doomed []string
	var uploads []int
	if err := d.request(func() error {
		doomed, uploads = nil, nil
		for _, name := range slices.Sorted(maps.Keys(b.objects)) {
			if strings.HasPrefix(name, dir+"/") && !keep(name, true) {
				doomed = append(doomed, name)
			}
		}
		for _, n := range slices.Sorted(maps.Keys(b.uploads)) {
			if name := b.uploads[n].name; strings.HasPrefix(name, dir+"/") && !keep(name, false) {
				uploads = append(uploads, n)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, name := range doomed {
		if err := d.request(func() error { b.remove(name); return nil }); err != nil {
			return err
		}
	}
	for _, n := range uploads {
		if err := d.request(func() error { delete(b.uploads, n); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// Sync has nothing to do.
func (d *deed) Sync(context.Context) error { return d.ctx.Err() }

// Close has nothing to do.
func (d *deed) Close() error { return nil }

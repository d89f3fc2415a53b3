package drivers_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sheaf-run/agent/drivers"
	"github.com/sheaf-run/agent/sheaf"
)

func TestWindowHoldsToItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w drivers.Window
		ctx, cancel := context.WithCancel(t.Context())
		if err := w.Take(ctx, drivers.MaxUnacknowledged-10); err != nil {
			t.Fatal(err)
		}
		if err := w.Take(ctx, 10); err != nil {
			t.Fatal(err)
		}
		took := make(chan error, 1)
		take := func() { took <- w.Take(ctx, 100) }
		go take()
		synctest.Wait()
		w.Ack(99)
		synctest.Wait()
		select {
		case <-took:
			t.Fatal("100 bytes went into room for 99")
		default:
		}
		w.Ack(1)
		if err := <-took; err != nil {
			t.Fatal(err)
		}
		go take()
		synctest.Wait()
		cancel()
		if err := <-took; !errors.Is(err, context.Canceled) {
			t.Errorf("Take = %v when its context ends", err)
		}
		ctx = t.Context()
		go take()
		synctest.Wait()
		w.Open()
		if err := <-took; err != nil {
			t.Error(err)
		}
		w.Ack(1 << 40) // more than was taken
		if err := w.Take(ctx, 5*drivers.MaxUnacknowledged); err != nil {
			t.Error(err)
		}
	})
}

func TestDecodeConfigNamesTheArgument(t *testing.T) {
	var c struct {
		Args []string `json:"args"`
	}
	tests := []struct{ config, field, says string }{
		{`{"args":"one"}`, "config.args", "string"},
		{`{"argv":["one"]}`, "config", "argv"},
		{`{`, "config", "EOF"},
		{`[]`, "config", "array"},
	}
	for _, tt := range tests {
		err := drivers.DecodeConfig("exec", []byte(tt.config), &c)
		e, ok := errors.AsType[*sheaf.Error](err)
		if !ok || e.Class != sheaf.Invalid || e.Field != tt.field || !strings.Contains(e.Error(), tt.says) || !strings.Contains(e.Error(), `"exec"`) {
			t.Errorf("%s: %#v (%v), want field %s and %q", tt.config, err, err, tt.field, tt.says)
		}
	}
	if err := drivers.DecodeConfig("exec", nil, &c); err != nil {
		t.Errorf("no config at all: %v", err)
	}
}

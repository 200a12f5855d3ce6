package recovery_test

import (
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/grantorhq/grantor/service/recovery"
)

func TestAwait(t *testing.T) {
	var none []int
	for name, test := range map[string]struct {
		f    func() (int, error)
		want string // the error; empty if 1 is returned
	}{
		"result":      {func() (int, error) { return 1, nil }, ""},
		"error":       {func() (int, error) { return 0, io.EOF }, "EOF"},
		"value":       {func() (int, error) { panic("s3cret") }, "the clock panicked with a string"},
		"error value": {func() (int, error) { panic(errors.New("s3cret")) }, "the clock panicked with a *errors.errorString"},
		"index":       {func() (int, error) { return none[len("a")], nil }, "the clock panicked: runtime error: index out of range [1] with length 0"},
		"Goexit":      {func() (int, error) { runtime.Goexit(); return 1, nil }, "the clock ended its goroutine"},
		"nil":         {nil, "the clock panicked: runtime error: invalid memory address or nil pointer dereference"},
	} {
		t.Run(name, func(t *testing.T) {
			functions := map[string]func(string, func() (int, error)) (int, error){"Await": recovery.Await[int], "Call": recovery.Call[int]}
			if name == "Goexit" {
				delete(functions, "Call") // it is for the goroutine of the caller
			}
			for function, call := range functions {
				got, err := call("the clock", test.f)
				text := ""
				if err != nil {
					text = err.Error()
				}
				if text != test.want || got == 1 != (err == nil) {
					t.Errorf("%s: got %d, %q, want %q", function, got, text, test.want)
				}
			}
		})
	}
	if _, err := recovery.Call("f", func() (int, error) { return 0, io.EOF }); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the error of f", err)
	}
	var fault runtime.Error
	if _, err := recovery.Call("f", func() (int, error) { return none[0], nil }); !errors.As(err, &fault) {
		t.Errorf("got %v, want a runtime.Error in it", err)
	}
}

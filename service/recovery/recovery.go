// Package recovery calls code of the program that uses a library of this module, such as a transport, a clock or a hook,
// and returns an error if that code panics.
//
// [Call] is for the goroutine of a caller. [Await] is for goroutines of the library: the program cannot recover there, and
// a panic would end its process.
package recovery

import (
	"fmt"
	"runtime"
)

// Error reports that code of the program panicked, or ended its goroutine.
type Error struct {
	// what names the code.
	what string
	// value is the value of the panic, or nil if the code ended its goroutine.
	value any
}

// Error names the code. It quotes the value of the panic only if that is a [runtime.Error], because another value may be
// a secret.
func (e *Error) Error() string {
	switch v := e.value.(type) {
	case nil:
		return e.what + " ended its goroutine"
	case runtime.Error:
		return e.what + " panicked: " + v.Error()
	default:
		return fmt.Sprintf("%s panicked with a %T", e.what, v)
	}
}

// Unwrap returns the value of the panic if it is a [runtime.Error].
func (e *Error) Unwrap() error {
	err, _ := e.value.(runtime.Error)
	return err
}

// Call returns what f returns, or an [*Error] that names f by what if f panics.
func Call[T any](what string, f func() (T, error)) (result T, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &Error{what, value}
		}
	}()
	return f()
}

// Do calls f, and returns an [*Error] that names f by what if f panics.
func Do(what string, f func()) error {
	_, err := Call(what, func() (struct{}, error) { f(); return struct{}{}, nil })
	return err
}

// Await does what Call does in a goroutine of its own, for which it waits, so that it also returns an [*Error] if f ends
// its goroutine ([runtime.Goexit]).
func Await[T any](what string, f func() (T, error)) (result T, err error) {
	done := make(chan struct{})
	err = &Error{what: what}
	go func() {
		defer close(done)
		result, err = Call(what, f)
	}()
	<-done
	return result, err
}

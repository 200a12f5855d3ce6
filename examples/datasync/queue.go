package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// arrival is between two documents.
	arrival = 5 * time.Second
	// mostPending is how many documents the queue keeps.
	mostPending = 3
)

// queue has the documents that wait: those that came last, since no one marks them as done here. Nothing in it is about
// tokens.
type queue struct {
	mu        sync.Mutex
	documents []string
	changed   chan struct{} // closed at the next change
}

func newQueue() *queue { return &queue{changed: make(chan struct{})} }

func (q *queue) pending() (documents []string, changed <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.documents, q.changed
}

// fill adds documents until ctx ends.
func (q *queue) fill(ctx context.Context) {
	for number := 1; ctx.Err() == nil; number++ {
		q.add(fmt.Sprintf("invoice-%d", number))
		select {
		case <-ctx.Done():
		case <-time.After(arrival):
		}
	}
}

func (q *queue) add(document string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// A new slice: calls in flight have the old one.
	kept := q.documents[max(0, len(q.documents)+1-mostPending):]
	q.documents = append(append([]string{}, kept...), document)
	close(q.changed)
	q.changed = make(chan struct{})
}

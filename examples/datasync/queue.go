package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// arrivalInterval is the time between two documents.
	arrivalInterval = 5 * time.Second
	// maxPending is the maximum number of documents in the queue.
	maxPending = 3
)

// queue holds the latest documents. Nothing here marks documents as done, and nothing here concerns tokens.
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
		case <-time.After(arrivalInterval):
		}
	}
}

func (q *queue) add(document string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// The slice is new because calls in flight use the old one.
	kept := q.documents[max(0, len(q.documents)+1-maxPending):]
	q.documents = append(append([]string{}, kept...), document)
	close(q.changed)
	q.changed = make(chan struct{})
}

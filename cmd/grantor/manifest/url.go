package manifest

import (
	"context"

	"go.yaml.in/yaml/v4"
	"golang.org/x/sync/errgroup"
)

// Fetch reads the secret that a URL names. Its errors quote no secret. It is safe for concurrent use by multiple goroutines.
type Fetch func(ctx context.Context, url string) (string, error)

// maxFetches bounds how many secrets are read at once: secret managers limit the rate of requests.
const maxFetches = 8

// secretURL is a secret of a client that is named by a URL.
type secretURL struct {
	client int
	url    string
	node   *yaml.Node
}

// readSecretURL reads the URL of the secret of the client that is read next.
func (m *File) readSecretURL(node *yaml.Node) error {
	url, err := m.doc.Scalar(node)
	if err != nil {
		return err
	}
	if url == "" {
		return m.doc.Errorf(node, "client_secret_url is empty")
	}
	m.urls = append(m.urls, secretURL{len(m.Clients), url, node})
	return nil
}

// fetch reads the secrets that URLs name. The first error ends it, because all of them may wait for the same server.
func (m *File) fetch(ctx context.Context, fetch Fetch) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxFetches)
	for _, one := range m.urls {
		group.Go(func() error {
			secret, err := fetch(ctx, one.url)
			if err == nil {
				err = checkSecret(secret, "the secret of client_secret_url")
			}
			if err != nil {
				return m.doc.Errorf(one.node, "%v", err)
			}
			m.Clients[one.client].Secret = secret
			return nil
		})
	}
	return group.Wait()
}

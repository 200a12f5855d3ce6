package clientsecret_test

import (
	"strings"
	"time"
)

var start = time.Unix(1_800_000_000, 0)

var pepper = []byte(strings.Repeat("p", 32))

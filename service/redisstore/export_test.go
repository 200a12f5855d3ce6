package redisstore

// MaxCountedKeys is the maximum number of keys of one window.
const MaxCountedKeys = maxCountedKeys

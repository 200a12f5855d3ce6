package redisstore

// CountedKeys is how many keys one window has at the most.
const CountedKeys = countedKeys

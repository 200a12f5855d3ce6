package token

// Joined is what puts R and S one after the other.
var Joined = joined

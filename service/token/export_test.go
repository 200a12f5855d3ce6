package token

// JoinRS exports joinRS.
var JoinRS = joinRS

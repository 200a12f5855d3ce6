package jws

// JoinRS exports joinRS.
var JoinRS = joinRS

package jws

// JoinRS exports joinRS.
var JoinRS = joinRS

// SplitRS exports splitRS.
var SplitRS = splitRS

package heartbeat

// The insecure options that Status.Insecure lists.
const (
	// InsecureDevelopment is development mode, whose client has a public secret.
	InsecureDevelopment = "dev"
	// InsecurePlaintext is the lack of TLS on ports that other machines reach.
	InsecurePlaintext = "insecure-allow-plaintext-beyond-loopback"
)

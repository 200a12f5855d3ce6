package admin

import (
	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
)

// NewTrustCommand returns grantor trust. Its commands that call no issuer are given.
func NewTrustCommand(others ...*cobra.Command) *cobra.Command {
	issuer := cli.NewGroup("issuer", "Administer the trusted issuers and trust domains of a running issuer",
		`Administer the trusted issuers and trust domains of a running issuer: whose identities it accepts. One is named by its
URL, the iss of its tokens, or by spiffe:// and the trust domain.`,
		trustedIssuers.listCommand(), trustedIssuers.getCommand(), trustedIssuers.createCommand(), trustedIssuers.updateCommand(),
		trustedIssuers.deleteCommand())
	workload := cli.NewGroup("workload", "Administer the workloads of a running issuer",
		`Administer the workloads of a running issuer: rules that make clients of identities, without a registration of each. One
is named by the pattern of its clients' ids, such as "k8s:{namespace}:{name}".`,
		workloads.listCommand(), workloads.getCommand(), workloads.createCommand(), workloads.updateCommand(), workloads.deleteCommand())
	return cli.NewGroup("trust", "Administer whose identities from elsewhere are accepted, and as which clients",
		`Administer the issuers and trust domains whose identities a running issuer accepts, and the workloads, which are clients
without a registration. The calling client needs the scopes grantor:trust.read and grantor:trust.write, and to change a
trusted issuer every scope "grantor:…": whoever chooses the keys of an issuer can act as its clients.
docs/clients-and-resources.md describes the fields and the patterns. See also: grantor help profiles, grantor help
exit-codes.`,
		append([]*cobra.Command{issuer, workload}, others...)...)
}

package admin

import (
	"context"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/registrypb"
)

// entryKind describes the commands for one kind of entry of the trust table, whose message is M.
type entryKind[M proto.Message] struct {
	// path is how the commands are called after grantor, arg the name of their argument, and noun what it is.
	path, arg, noun string
	// example is an argument.
	example string
	// scopes are those that a change needs.
	scopes string
	// declare adds the flags of the fields to a command, and lines returns the fields of an entry for people.
	declare func(*cobra.Command) *fieldChange
	lines   func(M) [][]string
	// new returns a new entry with the given name.
	new func(name string) M

	// list is the name of a list in JSON; header and row are its columns for people.
	list   string
	header []string
	row    func(M) []string

	// page returns the page of the list that a token identifies, and the token of the next page.
	page   func(ctx context.Context, a *administrator, token string) ([]M, string, error)
	get    func(ctx context.Context, a *administrator, name string) (M, error)
	create func(ctx context.Context, a *administrator, wanted M) (M, error)
	update func(ctx context.Context, a *administrator, next M, mask *fieldmaskpb.FieldMask) (M, error)
	remove func(ctx context.Context, a *administrator, name, etag string) (proto.Message, error)

	// hasScopes reports whether an entry has scopes, which flags can add and remove.
	hasScopes                    bool
	createExample, updateExample string
	// removed describes what follows from a removal, and question asks whether to do it.
	removed, question string
}

// title returns the noun at the beginning of a sentence.
func (k *entryKind[M]) title() string { return string(k.noun[0]-'a'+'A') + k.noun[1:] }

// etagFlag adds the flag --etag to a command.
func (k *entryKind[M]) etagFlag(cmd *cobra.Command, etag *string) {
	cmd.Flags().StringVar(etag, "etag", "", "the `state` that is meant, as grantor "+k.path+" get shows it")
}

func (k *entryKind[M]) listCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:     "list",
		Short:   "List the " + k.noun + "s",
		Example: "  grantor " + k.path + " list",
		Args:    cobra.ExactArgs(0),
	}, registry.ScopeTrustRead, func(ctx context.Context, a *administrator, _ []string) error {
		list := cli.List[M]{Printer: a.Printer, Name: k.list, Header: k.header, Row: k.row}
		return list.Pages(a.cmd, func(token string) ([]M, string, error) { return k.page(ctx, a, token) })
	})
}

func (k *entryKind[M]) getCommand() *cobra.Command {
	return newCommand(&cobra.Command{
		Use:     "get " + k.arg,
		Short:   "Show a " + k.noun,
		Example: "  grantor " + k.path + " get " + k.example,
		Args:    cobra.ExactArgs(1),
	}, registry.ScopeTrustRead, func(ctx context.Context, a *administrator, args []string) error {
		entry, err := k.get(ctx, a, args[0])
		if err != nil {
			return cli.About(k.noun, args[0], err)
		}
		return a.Print(entry, func(out io.Writer) error { return cli.WriteTable(out, k.lines(entry)...) })
	})
}

func (k *entryKind[M]) createCommand() *cobra.Command {
	var change *fieldChange
	cmd := newCommand(&cobra.Command{
		Use:     "create " + k.arg,
		Short:   "Add a " + k.noun,
		Example: k.createExample,
		Args:    cobra.ExactArgs(1),
	}, k.scopes, func(ctx context.Context, a *administrator, args []string) error {
		wanted := k.new(args[0])
		change.apply(wanted)
		made, err := k.create(ctx, a, wanted)
		return k.done(a, args[0], "added", made, err)
	})
	change = k.declare(cmd)
	return cmd
}

func (k *entryKind[M]) updateCommand() *cobra.Command {
	var change *fieldChange
	var etag string
	cmd := newCommand(&cobra.Command{
		Use:   "update " + k.arg,
		Short: "Change a " + k.noun,
		Long: "Change the fields of a " + k.noun + ` for which a flag is given, and leave the others as they are. An empty value clears
a field.

If the ` + k.noun + ` is changed concurrently, the command fails with exit code 5 and changes nothing; with --etag it also
does so if the ` + k.noun + " was changed since it was read.",
		Example: k.updateExample,
		Args:    cobra.ExactArgs(1),
	}, k.scopes, func(ctx context.Context, a *administrator, args []string) error {
		entry, err := k.get(ctx, a, args[0])
		if err != nil {
			return cli.About(k.noun, args[0], err)
		}
		mask := &fieldmaskpb.FieldMask{Paths: change.apply(entry)}
		if etag != "" {
			registrypb.SetField(entry, "etag", etag)
		}
		changed, err := k.update(ctx, a, entry, mask)
		return k.done(a, args[0], "changed", changed, err)
	})
	if change = k.declare(cmd); k.hasScopes {
		change.declareScopeEdits()
	}
	k.etagFlag(cmd, &etag)
	return cli.WithPreRun(cmd, change.check)
}

func (k *entryKind[M]) deleteCommand() *cobra.Command {
	var etag string
	cmd := newCommand(&cobra.Command{
		Use:     "delete " + k.arg,
		Short:   "Remove a " + k.noun,
		Long:    k.removed,
		Example: "  grantor " + k.path + " delete " + k.example + " --yes",
		Args:    cobra.ExactArgs(1),
	}, k.scopes, func(ctx context.Context, a *administrator, args []string) error {
		answer, err := k.remove(ctx, a, args[0], etag)
		return k.done(a, args[0], "removed", answer, err)
	})
	k.etagFlag(cmd, &etag)
	return cli.WithConfirmation(cmd, k.question)
}

// done prints the result of a change of the entry with the name, or returns its error.
func (k *entryKind[M]) done(a *administrator, name, what string, answer proto.Message, err error) error {
	if err != nil {
		return cli.About(k.noun, name, err)
	}
	return a.Printf(answer, k.title()+" %s is "+what+".", cli.Printable(name))
}

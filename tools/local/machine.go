package local

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// libraries lists the modules whose versions affect the figures.
var libraries = []string{
	"google.golang.org/grpc", "google.golang.org/protobuf", "github.com/lestrrat-go/jwx/v2", "github.com/redis/go-redis/v9",
}

// DescribeMachine returns a list of the hardware and the versions of the software. It names neither the machine nor a path on
// it.
func DescribeMachine(ctx context.Context) (string, error) {
	t := &facts{}
	processor, err := FirstMatch("/proc/cpuinfo", `(?m)^model name\s*:\s*(.*)$`)
	if err != nil {
		processor = runtime.GOARCH // /proc/cpuinfo of some architectures has no name
	}
	t.add("processor", fmt.Sprintf("%s, %d cores", processor, runtime.NumCPU()))
	memory, err := FirstMatch("/proc/meminfo", `MemTotal:\s*(\d+)`)
	if err != nil {
		return "", err
	}
	kilobytes, err := strconv.ParseFloat(memory, 64)
	if err != nil {
		return "", err
	}
	t.add("memory", fmt.Sprintf("%.1f GB", kilobytes*1024/1e9))
	kernel, err := FirstMatch("/proc/sys/kernel/osrelease", `(\S+)`)
	if err != nil {
		return "", err
	}
	t.add("kernel", "Linux "+kernel)
	if err := addVersions(ctx, t); err != nil {
		return "", err
	}
	collector := os.Getenv("GOGC")
	if collector == "" {
		collector = "not set, which means Go's default of 100"
	}
	t.add("GOGC in the environment of all servers", collector)
	return "Measured on, and with:\n\n" + strings.TrimSpace(t.String()), nil
}

// facts is a list in Markdown.
type facts struct{ strings.Builder }

func (f *facts) add(name, value string) { _, _ = fmt.Fprintf(f, "- %s: %s\n", name, value) }

// addVersions adds the versions of the programs, the libraries and the repository.
func addVersions(ctx context.Context, t *facts) error {
	t.add("Go", runtime.Version())
	server, err := Output(ctx, os.Environ(), "redis-server", "--version")
	if err != nil {
		return err
	}
	version := regexp.MustCompile(`v=(\S+)`).FindSubmatch(server)
	if version == nil {
		return fmt.Errorf("redis-server --version printed %.100q", server)
	}
	t.add("redis-server", string(version[1]))
	listed, err := Output(ctx, os.Environ(), "go", append([]string{"list", "-m"}, libraries...)...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(listed)) {
		name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		t.add(name, version)
	}
	commit, err := Output(ctx, os.Environ(), "git", "rev-parse", "--short=12", "HEAD")
	if err != nil {
		return err
	}
	changed, err := Output(ctx, os.Environ(), "git", "status", "--porcelain", "--", "*.go", "*go.mod")
	if err != nil {
		return err
	}
	state := ""
	if len(changed) > 0 {
		state = ", with uncommitted changes"
	}
	t.add("commit", strings.TrimSpace(string(commit))+state)
	return nil
}

// FirstMatch returns the first group of the first match of a regular expression in a file.
func FirstMatch(path, expression string) (string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(expression).FindSubmatch(content)
	if found == nil {
		return "", fmt.Errorf("%s does not match %s", path, expression)
	}
	return string(found[1]), nil
}

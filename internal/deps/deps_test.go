package deps_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module   = "github.com/interconnect-go/interconnect"
	connect  = "connectrpc.com/connect"
	protobuf = "google.golang.org/protobuf"
)

// policies are the packages that know nothing of each other.
var policies = []string{"auth", "tracing", "ratelimit", "logging", "retry", "deadline"}

// requirements are the modules that go.mod may require directly.
var requirements = []string{
	connect,
	protobuf,
	"github.com/golang-jwt/jwt/v5",
	"go.opentelemetry.io/otel",
	"go.opentelemetry.io/otel/metric",
	"go.opentelemetry.io/otel/trace",
	"golang.org/x/time",
	"google.golang.org/genproto/googleapis/rpc",
	// Only tests import these.
	"github.com/google/go-cmp",
	"go.opentelemetry.io/otel/sdk",
	"go.opentelemetry.io/otel/sdk/metric",
}

// testOnly are the requirements that no package may import outside its tests.
var testOnly = []string{"github.com/google/go-cmp", "go.opentelemetry.io/otel/sdk"}

// sourceFile is a Go file of the repository and what it imports.
type sourceFile struct {
	path    string // from the repository's root, with slashes
	imports []string
}

// dir returns the folder of the file, without the leading slash.
func (f sourceFile) dir() string { return path.Dir(f.path) }

func (f sourceFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

func TestLowerLayersImportLittle(t *testing.T) {
	t.Parallel()
	// The first folder that contains a file decides; the standard library is
	// always allowed.
	layers := []struct {
		dir     string
		allowed []string
	}{
		{dir: "streamwrap/frame"},
		{dir: "streamwrap/streamwraptest", allowed: []string{
			connect, protobuf, module + "/streamwrap", module + "/internal/conntest",
		}},
		{dir: "streamwrap", allowed: []string{connect, protobuf, module + "/streamwrap", module + "/internal/procedure", module + "/internal/httprequest"}},
		{dir: "internal/procedure"},
		{dir: "internal/httprequest"},
		{dir: "internal/rpcerror", allowed: []string{connect, protobuf, "google.golang.org/genproto/googleapis/rpc"}},
		{dir: "internal/conntest", allowed: []string{
			connect, protobuf, module + "/internal/conntest", module + "/streamwrap/frame",
		}},
	}
	for _, file := range sources(t, "../..") {
		if file.isTest() {
			continue
		}
		for _, layer := range layers {
			if !within(file.dir(), layer.dir) {
				continue
			}
			for _, imported := range file.imports {
				if !isStandard(imported) && !withinAny(imported, layer.allowed) {
					t.Errorf("%s imports %s, which %s may not", file.path, imported, layer.dir)
				}
			}
			break
		}
	}
}

func TestPoliciesAreIndependent(t *testing.T) {
	t.Parallel()
	for _, file := range sources(t, "../..") {
		self, _, _ := strings.Cut(file.dir(), "/")
		if !slices.Contains(policies, self) && self != "streamwrap" {
			continue
		}
		for _, policy := range policies {
			for _, imported := range file.imports {
				if policy != self && within(imported, module+"/"+policy) {
					t.Errorf("%s imports %s: only users combine policy packages", file.path, imported)
				}
			}
		}
	}
}

// TestEveryPolicyIsListed: a package that is not would keep no rule.
func TestEveryPolicyIsListed(t *testing.T) {
	t.Parallel()
	others := []string{".", "streamwrap", "internal"}
	for _, file := range rootModule(t) {
		dir, _, _ := strings.Cut(file.dir(), "/")
		if !slices.Contains(policies, dir) && !slices.Contains(others, dir) {
			t.Errorf("%s is in no package of policies: add %q to it, and to depguard in .golangci.yml", file.path, dir)
		}
	}
}

func TestPoliciesDocumentTheSameThings(t *testing.T) {
	t.Parallel()
	for _, policy := range policies {
		doc, err := os.ReadFile("../../" + policy + "/doc.go")
		if err != nil {
			t.Error(err)
		}
		for _, heading := range []string{"Defaults", "Streaming", "Without an Engine", "Order", "Cost"} {
			if !bytes.Contains(doc, []byte("\n// # "+heading+"\n")) {
				t.Errorf("%s/doc.go has no heading %q", policy, heading)
			}
		}
	}
}

func TestTestDependenciesStayInTests(t *testing.T) {
	t.Parallel()
	for _, file := range rootModule(t) {
		if file.isTest() {
			continue
		}
		for _, imported := range file.imports {
			if withinAny(imported, testOnly) {
				t.Errorf("%s imports %s, which is for tests only", file.path, imported)
			}
		}
	}
}

func TestRootModuleHasNoGeneratedCode(t *testing.T) {
	t.Parallel()
	for _, file := range rootModule(t) {
		if strings.HasSuffix(file.path, ".pb.go") || strings.HasSuffix(file.path, ".connect.go") {
			t.Errorf("%s: generated code belongs into a nested module", file.path)
		}
	}
}

func TestRootModuleRequiresOnlyWhatIsListed(t *testing.T) {
	t.Parallel()
	command := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	command.Dir = "../.."
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go mod edit -json: %v", err)
	}
	var file struct {
		Module  struct{ Path string }
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace []struct{ Old struct{ Path string } }
	}
	if err := json.NewDecoder(bytes.NewReader(output)).Decode(&file); err != nil {
		t.Fatalf("go.mod: %v", err)
	}
	if file.Module.Path != module {
		t.Errorf("the root module is %q, want %q", file.Module.Path, module)
	}
	for _, required := range file.Require {
		if !required.Indirect && !slices.Contains(requirements, required.Path) {
			t.Errorf("go.mod requires %s, which is not on the list of this test", required.Path)
		}
	}
	for _, replaced := range file.Replace {
		t.Errorf("go.mod replaces %s, which users of the module would not see", replaced.Old.Path)
	}
}

// rootModule returns the files of the root module: those that no nested
// go.mod claims.
func rootModule(t *testing.T) []sourceFile {
	t.Helper()
	const root = "../.."
	return slices.DeleteFunc(sources(t, root), func(file sourceFile) bool {
		for dir := file.dir(); dir != "."; dir = path.Dir(dir) {
			_, err := os.Stat(filepath.Join(root, filepath.FromSlash(dir), "go.mod"))
			if err == nil {
				return true
			}
			if !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
		return false
	})
}

// sources returns the Go files under root, nested modules included.
func sources(t *testing.T, root string) []sourceFile {
	t.Helper()
	var files []sourceFile
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(),
			filepath.Join(root, filepath.FromSlash(name)), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		file := sourceFile{path: name}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			file.imports = append(file.imports, imported)
		}
		files = append(files, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("found no Go files")
	}
	return files
}

// isStandard reports whether an import path is the standard library's: other
// paths begin with a domain.
func isStandard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

// within reports whether name is dir or below it.
func within(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, dir+"/")
}

func withinAny(name string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return within(name, dir) })
}

// Package deps has no code, only a test: it keeps the module's packages and
// requirements as independent of each other as its design says.
//
// # Rules
//
//   - streamwrap imports the standard library, connect and protobuf;
//     streamwrap/frame only the standard library.
//   - A policy package imports streamwrap and never another policy package,
//     neither in its code nor in its tests.
//   - The root module directly requires what a fixed list names, so that
//     nothing else reaches the go.sum of users.
//   - There is no generated code in the root module.
//
// A package that does not exist yet keeps every rule.
package deps

// Package chain has no code. Its tests are about the chain of the manual as a whole: what
// its order is for, what becomes of other orders, and that connect's packages for
// validation, reflection and CORS, and health checks, stand beside it.
package chain

package auth

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
)

// Reason is why an RPC was refused: the reason of the google.rpc.ErrorInfo.
type Reason string

// The reasons.
const (
	ReasonMissing     Reason = "CREDENTIALS_MISSING"
	ReasonMalformed   Reason = "CREDENTIALS_MALFORMED"
	ReasonInvalid     Reason = "TOKEN_INVALID"
	ReasonExpired     Reason = "TOKEN_EXPIRED"
	ReasonNotYetValid Reason = "TOKEN_NOT_YET_VALID"
	ReasonRevoked     Reason = "TOKEN_REVOKED"
	ReasonScope       Reason = "SCOPE_INSUFFICIENT"
	ReasonDenied      Reason = "PERMISSION_DENIED"
	ReasonNoPolicy    Reason = "NO_POLICY"
	ReasonUnavailable Reason = "AUTH_UNAVAILABLE"
	ReasonBroken      Reason = "AUTH_BROKEN"
)

// Errors for authenticators to return, or to wrap with what only the server's own
// logs should say.
var (
	// ErrMissing means that there is no credential.
	ErrMissing error = &rejection{reason: ReasonMissing}
	// ErrMalformed means one that is none: two headers, another scheme, too long.
	ErrMalformed error = &rejection{reason: ReasonMalformed}
	// ErrInvalid means one that is not good, for whatever reason.
	ErrInvalid error = &rejection{reason: ReasonInvalid}
	// ErrExpired means one that was good.
	ErrExpired error = &rejection{reason: ReasonExpired}
	// ErrNotYetValid means one that will be good.
	ErrNotYetValid error = &rejection{reason: ReasonNotYetValid}
	// ErrRevoked means one that was taken back.
	ErrRevoked error = &rejection{reason: ReasonRevoked}
	// ErrDenied means that the caller may not do this.
	ErrDenied error = &rejection{reason: ReasonDenied}
	// ErrUnavailable means that nobody can tell now: what knows is down.
	ErrUnavailable error = &rejection{reason: ReasonUnavailable}
)

// ReasonOf returns why an RPC was refused, on both sides; false for other errors.
func ReasonOf(err error) (Reason, bool) {
	if r := (*rejection)(nil); errors.As(err, &r) {
		return r.reason, true
	}
	for info := range rpcerror.Details[*errdetails.ErrorInfo](err) {
		if reason := Reason(info.GetReason()); reason.known() {
			return reason, true
		}
	}
	return "", false
}

// rejection is why an RPC is refused. Its text is for the client.
type rejection struct {
	reason Reason
	scopes []string // that are missing
	stream bool     // the RPC had begun
	cause  error    // for the server's eyes
}

func (r *rejection) Error() string { return texts[r.reason].message }
func (r *rejection) Unwrap() error { return r.cause }

// Is makes errors match those of the package with the same reason.
func (r *rejection) Is(target error) bool {
	other, ok := target.(*rejection)
	return ok && other.reason == r.reason
}

// text is what a client is told.
type text struct {
	code    connect.Code
	message string
	oauth   string // the error of RFC 6750
}

var texts = map[Reason]text{
	ReasonMissing:     {connect.CodeUnauthenticated, "authentication required", ""},
	ReasonMalformed:   {connect.CodeUnauthenticated, "malformed credentials", "invalid_request"},
	ReasonInvalid:     {connect.CodeUnauthenticated, "invalid token", "invalid_token"},
	ReasonExpired:     {connect.CodeUnauthenticated, "token expired", "invalid_token"},
	ReasonNotYetValid: {connect.CodeUnauthenticated, "token not yet valid", "invalid_token"},
	ReasonRevoked:     {connect.CodeUnauthenticated, "token revoked", "invalid_token"},
	ReasonScope:       {connect.CodePermissionDenied, "permission denied", "insufficient_scope"},
	ReasonDenied:      {connect.CodePermissionDenied, "permission denied", ""},
	ReasonNoPolicy:    {connect.CodePermissionDenied, "permission denied", ""},
	ReasonUnavailable: {connect.CodeUnavailable, "authentication temporarily unavailable", ""},
	ReasonBroken:      {connect.CodeInternal, "authentication failed", ""},
}

func (r Reason) known() bool {
	_, ok := texts[r]
	return ok
}

// retryDelay is when to ask again if authentication is unavailable.
const retryDelay = time.Second

// coded returns the error that the client gets.
func (r *rejection) coded(domain string) *connect.Error {
	err := connect.NewError(texts[r.reason].code, r)
	info := &errdetails.ErrorInfo{Reason: string(r.reason), Domain: domain}
	if len(r.scopes) > 0 || r.stream {
		info.Metadata = make(map[string]string)
	}
	if len(r.scopes) > 0 {
		info.Metadata["requiredScopes"] = strings.Join(r.scopes, " ")
	}
	if r.stream {
		info.Metadata["phase"] = "stream"
	}
	rpcerror.Attach(err, info)
	if r.reason == ReasonUnavailable {
		rpcerror.Postpone(err, retryDelay)
	}
	return err
}

// challenge returns the WWW-Authenticate header of RFC 6750, empty for none.
func (r *rejection) challenge(realm string) string {
	t := texts[r.reason]
	if t.oauth == "" && r.reason != ReasonMissing || r.stream {
		return ""
	}
	challenge := fmt.Sprintf("Bearer realm=%q", realm)
	if t.oauth != "" {
		challenge += fmt.Sprintf(", error=%q", t.oauth)
	}
	if r.reason == ReasonExpired {
		challenge += fmt.Sprintf(", error_description=%q", t.message)
	}
	if len(r.scopes) > 0 {
		challenge += fmt.Sprintf(", scope=%q", strings.Join(r.scopes, " "))
	}
	return challenge
}

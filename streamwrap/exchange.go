package streamwrap

// Exchange is the HTTP exchange that carries an RPC, as the wire sees it. It
// exists only behind an Engine; see [Call.Exchange].
type Exchange struct{ _ [0]func() }

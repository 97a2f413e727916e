// Package httprequest looks after copies of HTTP requests.
package httprequest

import "net/http"

// HandBack copies what handlers left in their copy of a request to the one that
// middleware outside and net/http, which removes files, look at.
func HandBack(to, from *http.Request) {
	to.Pattern = from.Pattern
	to.Form, to.PostForm, to.MultipartForm = from.Form, from.PostForm, from.MultipartForm
}

package mlbridge

import (
	"errors"
	"strconv"
)

// Status is the C ABI's status code of a call that failed. Each is an error; compare with errors.Is.
type Status uint8

// What a call can fail with.
const (
	ErrInvalid Status = 1  // impossible argument; from Attach: no engine of this instance
	ErrName    Status = 2  // not a domain name
	ErrConfig  Status = 3  // unknown setting, bad value, settings that contradict each other
	ErrIO      Status = 4  // a file cannot be read or written
	ErrModel   Status = 5  // the model cannot be loaded
	ErrTimeout Status = 6  // not done in the time given
	ErrRange   Status = 7  // buffer too small; this package grows its buffers
	ErrForked  Status = 8  // the process has forked since the engine was opened
	ErrBusy    Status = 9  // state_dir is held by another process
	ErrPanic   Status = 10 // a bug inside the library, caught; the engine goes on
)

// ErrClosed is returned by every method of an Engine after its Close, and by those of one that was never opened.
var ErrClosed = errors.New("mlbridge: engine is closed")

// ErrABI is returned by Open and Attach where the library's calls mean something else than those this package was built for.
var ErrABI = errors.New("mlbridge: the library has another ABI")

// statusText has the words of the C ABI's status codes, for a build that prints one without calling C.
var statusText = [...]string{
	ErrInvalid: "invalid argument",
	ErrName:    "not a domain name",
	ErrConfig:  "wrong settings",
	ErrIO:      "input or output failed",
	ErrModel:   "model cannot be used",
	ErrTimeout: "timed out",
	ErrRange:   "buffer too small",
	ErrForked:  "process has forked",
	ErrBusy:    "held by another process",
	ErrPanic:   "internal failure",
}

// Error returns the words of the status.
func (s Status) Error() string {
	if int(s) < len(statusText) && statusText[s] != "" {
		return "mlbridge: " + statusText[s]
	}
	return "mlbridge: status " + strconv.Itoa(int(s))
}

// Error is a failure that the library explained. It unwraps to its Status, so that errors.Is(err, ErrConfig) works.
type Error struct {
	Status Status
	Key    string // the setting at fault, where one single setting was being applied
	Text   string // the library's own words; they name the key or the file and the value
}

// Error returns the library's words.
func (e *Error) Error() string {
	if e.Text == "" {
		return e.Status.Error()
	}
	return "mlbridge: " + e.Text
}

// Unwrap returns the status.
func (e *Error) Unwrap() error { return e.Status }

package mlbridge

import (
	"net/netip"
	"strconv"
)

// Label is what the model holds a name for: malicious from a score of 0.5 on.
type Label uint8

// The labels.
const (
	Benign    Label = 0 // below 0.5, or the model did not run
	Malicious Label = 1 // 0.5 or above
)

// String returns "benign" or "malicious".
func (l Label) String() string { return word(uint8(l), "benign", "malicious") }

// Decision is what was decided about a name.
type Decision uint8

// The decisions.
const (
	Allow Decision = 0 // answer as always
	Vet   Decision = 1 // answer as the setting vet.action says, and ask an administrator
	Block Decision = 2 // answer as the setting block.action says
)

// String returns "allow", "vet" or "block".
func (d Decision) String() string { return word(uint8(d), "allow", "vet", "block") }

// Action is what the server should answer.
type Action uint8

// The actions.
const (
	Pass     Action = 0 // as if the library were not there
	NXDomain Action = 1 // the name does not exist
	NoData   Action = 2 // the name exists and has nothing of the type asked for
	Refused  Action = 3 // the query is refused
	Sinkhole Action = 4 // the verdict's addresses for A and AAAA, no data for every other type
	Drop     Action = 5 // no answer at all
)

// String returns "pass", "nxdomain", "nodata", "refused", "sinkhole" or "drop".
func (a Action) String() string {
	return word(uint8(a), "pass", "nxdomain", "nodata", "refused", "sinkhole", "drop")
}

// Source is what decided.
type Source uint8

// The sources.
const (
	SourceModel     Source = 0 // the model's score against the thresholds
	SourceOverride  Source = 1 // an administrator's override
	SourceBlockList Source = 2 // a block list
	SourceAllowList Source = 3 // an allow list
	SourcePopular   Source = 4 // the list of popular registered domains
	SourceSkipped   Source = 5 // the name is of a kind that is never scored
)

// String returns "model", "override", "blocklist", "allowlist", "popular" or "skipped".
func (s Source) String() string {
	return word(uint8(s), "model", "override", "blocklist", "allowlist", "popular", "skipped")
}

// Flags are bits that say how a verdict came about.
type Flags uint32

// The flags.
const (
	FlagCached   Flags = 1  // the score came from the cache
	FlagObserved Flags = 2  // observe mode kept the action at pass
	FlagFailOpen Flags = 4  // something inside failed, and the name was let through
	FlagBreaker  Flags = 8  // the breaker kept the action at pass: the model was blocking too much
	FlagDropped  Flags = 16 // the event of this verdict was lost; the loss is counted
	FlagMessage  Flags = 32 // a message for the host's log waits: see Engine.Message
)

// Verdict is the answer about one name. Its zero value, which every error comes with, is benign, allow, pass: a caller
// that overlooks an error fails open. It has the layout of the C ABI's mlb_verdict, so that a call copies nothing.
type Verdict struct {
	Score     float32 // the model's number, 0 to 1; 0 when the model did not run
	Label     Label
	Decision  Decision
	Action    Action
	Source    Source
	Flags     Flags
	TTL       uint32 // seconds, for answers that the caller makes up
	sinkhole4 [4]byte
	sinkhole6 [16]byte
	FPR       float32 // share of benign names expected at or above this score; 0 if unknown or not scored
	Model     uint64  // the first eight bytes of the model's SHA-256, big endian
	_         [16]byte
}

// SinkholeIPv4 returns the address to answer A questions with, or the zero Addr if there is none.
func (v Verdict) SinkholeIPv4() netip.Addr {
	if v.sinkhole4 == [4]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom4(v.sinkhole4)
}

// SinkholeIPv6 returns the address to answer AAAA questions with, or the zero Addr if there is none.
func (v Verdict) SinkholeIPv6() netip.Addr {
	if v.sinkhole6 == [16]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom16(v.sinkhole6)
}

// word names a number of the C ABI. A newer library may know more numbers than this package.
func word(n uint8, words ...string) string {
	if int(n) < len(words) {
		return words[n]
	}
	return strconv.Itoa(int(n))
}

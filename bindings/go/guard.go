package mlbridge

import (
	"sync"
	"unsafe"
)

// guardShards is a power of two. Close locks all of them; a call locks one.
const (
	guardBits   = 4
	guardShards = 1 << guardBits
)

// guard lets any number of calls run at once and makes the last one, Close, wait for them. One sync.RWMutex would do, but
// its reader count is a single word that every processor writes to on every call. So there are several, each on cache
// lines of its own, and a goroutine takes the one that the address of its stack gives.
type guard struct {
	shards [guardShards]struct {
		sync.RWMutex
		_ [128 - unsafe.Sizeof(sync.RWMutex{})]byte
	}
}

// enter takes a shard for a call, which unlocks it with RUnlock, or returns nil: somebody is closing. It never waits, so
// that a long call beside it (Flush) cannot hold up a short one through a Close that waits for both.
func (g *guard) enter() *sync.RWMutex {
	var here byte
	// Stacks are at least 2 KiB, so that lower bits say nothing. The multiplication (Fibonacci hashing) spreads the rest.
	stack := uint64(uintptr(unsafe.Pointer(&here))) >> 11
	m := &g.shards[stack*0x9E3779B97F4A7C15>>(64-guardBits)].RWMutex
	if !m.TryRLock() {
		return nil
	}
	return m
}

// lock waits for the calls that run and keeps new ones out.
func (g *guard) lock() {
	for i := range g.shards {
		g.shards[i].Lock()
	}
}

// unlock lets calls in again.
func (g *guard) unlock() {
	for i := range g.shards {
		g.shards[i].Unlock()
	}
}

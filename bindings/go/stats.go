package mlbridge

// Stats are an engine's counters since it began; engines that share a store share them. It has the layout of the C ABI's
// mlb_stats. The ledger holds at every moment:
//
//	Classified        = Skipped + NotRecorded + SampledOut + Coalesced + DroppedQueue + DroppedStore + DroppedForked + Queued + Stored
//	Stored + Recovered = Delivered + DeadLettered + Pending + Evicted
type Stats struct {
	Classified    uint64 // names that got a verdict
	Errors        uint64 // calls that gave an error instead of a verdict
	Allowed       uint64 // verdicts with the decision allow
	Vetted        uint64 // verdicts with the decision vet
	Blocked       uint64 // verdicts with the decision block
	ByModel       uint64 // verdicts by the model
	ByOverride    uint64 // verdicts by an override
	ByBlocklist   uint64 // verdicts by a block list
	ByAllowlist   uint64 // verdicts by an allow list
	ByPopular     uint64 // verdicts by the list of popular names
	Skipped       uint64 // names of a kind that is never scored
	Cached        uint64 // scores that came from the cache
	Observed      uint64 // actions turned into pass by observe mode
	Breaker       uint64 // actions turned into pass by the breaker
	FailOpen      uint64 // names let through because something inside failed
	Panics        uint64 // panics caught
	NotRecorded   uint64 // verdicts that are no events, by setting
	SampledOut    uint64 // allowed names left out by sampling
	Coalesced     uint64 // events that became part of a row already stored
	DroppedQueue  uint64 // events lost because the queue was full
	DroppedStore  uint64 // events lost because the store did not take them
	DroppedForked uint64 // events lost because the process is a fork
	Queued        uint64 // events waiting for the worker thread
	Stored        uint64 // rows written to the store
	Recovered     uint64 // undelivered rows found in the store when it was opened
	Delivered     uint64 // rows acknowledged by the cluster
	DeadLettered  uint64 // rows the cluster refused for good
	Pending       uint64 // rows in the store that no cluster has acknowledged
	Evicted       uint64 // undelivered rows removed to keep the store within its bounds
	Duplicates    uint64 // delivered rows that the cluster had already
	UncleanEnds   uint64 // starts after an unclean end
	StoreResets   uint64 // times the store was corrupt and begun anew
	StoreErrors   uint64 // turns of the worker in which the store failed
	SinkErrors    uint64 // failed requests to the cluster
	Reloads       uint64 // reloads
	QueueCapacity uint64 // events that the queue can hold
}

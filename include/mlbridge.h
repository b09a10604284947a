/*
 * mlbridge: machine-learning verdicts on domain names, inside the DNS server.
 *
 * A host makes settings (mlb_config_new, mlb_config_set, mlb_config_load), an engine from them (mlb_init), asks it about
 * each queried name (mlb_classify or mlb_classify_wire), carries out the verdict's action, and frees the engine
 * (mlb_free). Link with -lmlbridge.
 *
 * Rules
 *  1. On an error a verdict is zeroed, handles are NULL, *need is set with MLB_E_RANGE, and nothing else is written. Input
 *     is borrowed for the call. The caller frees nothing but the two kinds of handle; freeing NULL is fine.
 *  2. Names are any bytes with a length; a final dot and case do not matter. Unicode text is converted to A-labels (IDNA);
 *     underscores and other bytes that real DNS carries are taken. The root, single labels, *.arpa, .local, .localhost,
 *     .internal and the zones of zones.own are skipped, not scored.
 *  3. Error text goes into the caller's err (NULL with 0 is fine), cut on a character boundary, always NUL-terminated; it
 *     names the key and the value. There is no last error of a thread.
 *  4. Any thread may call anything that takes a const mlb_engine *. mlb_free only after the last call has returned; it
 *     waits at most close_timeout_ms.
 *  5. mlb_init reads files and makes no network connection; the worker thread starts at the first classified name.
 *  6. instance: every mlb_init with the same instance and equal settings gives the same engine, counted; with other
 *     settings a new one, the instance's newest, while the old goes on until its holders free it. The newest is kept at
 *     rest after its last mlb_free until a successor replaces it, and mlb_attach gives it back: an adapter whose reload
 *     brought settings that fail goes on with the last good ones. Engines of one process with the same state_dir share one
 *     store, worker and forwarder; the newest engine's store.* and elasticsearch.* settings count. A state_dir held by
 *     another process does not fail mlb_init: the worker tries again each second, and mlb_flush gives MLB_E_BUSY.
 *  7. A child forked after the first classified name still classifies and records nothing (counted); a child forked before
 *     it owns the engine. The library takes no signal, installs no handler, prints nothing, and reads no environment
 *     variable that would change a decision or a destination.
 *  8. The object stays mapped after dlclose, has the soname libmlbridge.so.0 and exports mlb_* only. No panic crosses into
 *     the host.
 *  9. Within one soname functions, status values, keys, flags and fields at the end of mlb_stats may be added; nothing is
 *     removed or changes its meaning.
 *
 * This file is generated from src/ffi: do not edit.
 */

#ifndef MLBRIDGE_H
#define MLBRIDGE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) || defined(__clang__)
#define MLB_MUST_USE __attribute__((warn_unused_result))
#else
#define MLB_MUST_USE
#endif


/**
 * Version of the ABI that this header describes; compare it with mlb_abi_version() and refuse on a mismatch.
 */
#define MLB_ABI_VERSION 1

/**
 * Outcome of a call.
 */
typedef enum mlb_status {
  /**
   * Done.
   */
  MLB_OK = 0,
  /**
   * A NULL or impossible argument.
   */
  MLB_E_INVALID = 1,
  /**
   * Not a domain name: an empty label, a label over 63 bytes, a name over 255 bytes in wire form, a bad escape.
   */
  MLB_E_NAME = 2,
  /**
   * A setting is unknown, malformed, out of bounds, or contradicts another one.
   */
  MLB_E_CONFIG = 3,
  /**
   * A file, a directory or the store could not be used.
   */
  MLB_E_IO = 4,
  /**
   * The model could not be loaded, or failed.
   */
  MLB_E_MODEL = 5,
  /**
   * Not done within the time given.
   */
  MLB_E_TIMEOUT = 6,
  /**
   * The caller's buffer is too small; *need says how large it has to be.
   */
  MLB_E_RANGE = 7,
  /**
   * This process is a fork of the one whose engine it is; it records nothing.
   */
  MLB_E_FORKED = 8,
  /**
   * Another process holds what is needed.
   */
  MLB_E_BUSY = 9,
  /**
   * A panic inside the library was caught.
   */
  MLB_E_PANIC = 10,
} mlb_status;

/**
 * Values of mlb_verdict.label: what the model holds the name for.
 */
typedef enum mlb_label {
  /**
   * The score is below 0.5, or the model did not run.
   */
  MLB_BENIGN = 0,
  /**
   * The score is 0.5 or above.
   */
  MLB_MALICIOUS = 1,
} mlb_label;

/**
 * Values of mlb_verdict.decision.
 */
typedef enum mlb_decision {
  /**
   * Answer as always.
   */
  MLB_ALLOW = 0,
  /**
   * Let an administrator look at the name.
   */
  MLB_VET = 1,
  /**
   * Block the name.
   */
  MLB_BLOCK = 2,
} mlb_decision;

/**
 * Values of mlb_verdict.action: what the server should answer.
 */
typedef enum mlb_action {
  /**
   * As if the library were not there.
   */
  MLB_PASS = 0,
  /**
   * The name does not exist.
   */
  MLB_NXDOMAIN = 1,
  /**
   * The name exists, and has nothing of the type asked for.
   */
  MLB_NODATA = 2,
  /**
   * The query is refused.
   */
  MLB_REFUSED = 3,
  /**
   * sinkhole4 for A, sinkhole6 for AAAA, no data for other types and for an address that is all zero.
   */
  MLB_SINKHOLE = 4,
  /**
   * No answer at all.
   */
  MLB_DROP = 5,
} mlb_action;

/**
 * Values of mlb_verdict.source: what decided.
 */
typedef enum mlb_source {
  /**
   * The model's score against the thresholds.
   */
  MLB_SOURCE_MODEL = 0,
  /**
   * An administrator's override.
   */
  MLB_SOURCE_OVERRIDE = 1,
  /**
   * A block list.
   */
  MLB_SOURCE_BLOCKLIST = 2,
  /**
   * An allow list.
   */
  MLB_SOURCE_ALLOWLIST = 3,
  /**
   * The list of popular registered domains.
   */
  MLB_SOURCE_POPULAR = 4,
  /**
   * The name is of a kind that is never scored.
   */
  MLB_SOURCE_SKIPPED = 5,
} mlb_source;

/**
 * Bits of mlb_verdict.flags.
 */
typedef enum mlb_flag {
  /**
   * The score came from the cache.
   */
  MLB_FLAG_CACHED = 1,
  /**
   * Observe mode kept the action at pass.
   */
  MLB_FLAG_OBSERVED = 2,
  /**
   * Something inside failed, and the name was let through.
   */
  MLB_FLAG_FAIL_OPEN = 4,
  /**
   * The breaker kept the action at pass: the model blocks too much.
   */
  MLB_FLAG_BREAKER = 8,
  /**
   * The event of this verdict was lost; the loss is counted.
   */
  MLB_FLAG_DROPPED = 16,
  /**
   * mlb_message() has a text for the host's log.
   */
  MLB_FLAG_MESSAGE = 32,
} mlb_flag;

/**
 * Settings being put together. One thread at a time. Made by mlb_config_new(), freed by mlb_config_free().
 */
typedef struct mlb_config mlb_config;

/**
 * A loaded model, a policy and a store. A `const mlb_engine *` may be used by any number of threads at once. Made by
 * mlb_init() or mlb_attach(), freed by mlb_free().
 */
typedef struct mlb_engine mlb_engine;

/**
 * A verdict: 64 bytes, filled by the library. All zero means benign, allow, pass: a host that forgets to look at the
 * status lets the query through.
 */
typedef struct mlb_verdict {
  /**
   * The model's number, 0 (benign) to 1 (malicious); 0 when the model did not run.
   */
  float score;
  /**
   * An mlb_label.
   */
  uint8_t label;
  /**
   * An mlb_decision.
   */
  uint8_t decision;
  /**
   * An mlb_action.
   */
  uint8_t action;
  /**
   * An mlb_source.
   */
  uint8_t source;
  /**
   * mlb_flag bits.
   */
  uint32_t flags;
  /**
   * Time to live, in seconds, of an answer that the host makes up.
   */
  uint32_t ttl;
  /**
   * Address for A questions, in network order, when the action is MLB_SINKHOLE; all zero: none.
   */
  uint8_t sinkhole4[4];
  /**
   * Address for AAAA questions, in network order, when the action is MLB_SINKHOLE; all zero: none.
   */
  uint8_t sinkhole6[16];
  /**
   * Share of benign names, 0 to 1, expected at or above this score; 0 if unknown or not scored.
   */
  float fpr;
  /**
   * The first eight bytes of the model's SHA-256, big endian.
   */
  uint64_t model;
  /**
   * Zero.
   */
  uint8_t reserved[16];
} mlb_verdict;

/**
 * Counters of an engine and of those that share its store, since the store was first used by this process. It grows at
 * its end: pass your sizeof. The ledger holds at every moment:
 *
 * - `classified = skipped + not_recorded + sampled_out + coalesced + dropped_queue + dropped_store + dropped_forked`
 *   `+ queued + stored`
 * - `stored + recovered = delivered + dead_lettered + pending + evicted`
 *
 * While calls are under way it may be off by their number.
 */
typedef struct mlb_stats {
  /**
   * Names that got a verdict.
   */
  uint64_t classified;
  /**
   * Calls that gave an error instead of a verdict.
   */
  uint64_t errors;
  /**
   * Verdicts with the decision allow.
   */
  uint64_t allowed;
  /**
   * Verdicts with the decision vet.
   */
  uint64_t vetted;
  /**
   * Verdicts with the decision block.
   */
  uint64_t blocked;
  /**
   * Verdicts by the model.
   */
  uint64_t by_model;
  /**
   * Verdicts by an override.
   */
  uint64_t by_override;
  /**
   * Verdicts by a block list.
   */
  uint64_t by_blocklist;
  /**
   * Verdicts by an allow list.
   */
  uint64_t by_allowlist;
  /**
   * Verdicts by the list of popular names.
   */
  uint64_t by_popular;
  /**
   * Names of a kind that is never scored.
   */
  uint64_t skipped;
  /**
   * Scores that came from the cache.
   */
  uint64_t cached;
  /**
   * Actions turned into pass by observe mode.
   */
  uint64_t observed;
  /**
   * Actions turned into pass by the breaker.
   */
  uint64_t breaker;
  /**
   * Names let through because something inside failed.
   */
  uint64_t fail_open;
  /**
   * Panics caught.
   */
  uint64_t panics;
  /**
   * Verdicts that are no events, by setting.
   */
  uint64_t not_recorded;
  /**
   * Allowed names left out by sampling.
   */
  uint64_t sampled_out;
  /**
   * Events that became part of a row already stored.
   */
  uint64_t coalesced;
  /**
   * Events lost because the queue was full.
   */
  uint64_t dropped_queue;
  /**
   * Events lost because the store did not take them.
   */
  uint64_t dropped_store;
  /**
   * Events lost because the process is a fork.
   */
  uint64_t dropped_forked;
  /**
   * Events waiting for the worker thread; a gauge.
   */
  uint64_t queued;
  /**
   * Rows written to the store.
   */
  uint64_t stored;
  /**
   * Undelivered rows found in the store when it was opened.
   */
  uint64_t recovered;
  /**
   * Rows acknowledged by the cluster.
   */
  uint64_t delivered;
  /**
   * Rows that the cluster refused for good.
   */
  uint64_t dead_lettered;
  /**
   * Rows in the store that no cluster has acknowledged; a gauge.
   */
  uint64_t pending;
  /**
   * Undelivered rows removed to keep the store within its bounds.
   */
  uint64_t evicted;
  /**
   * Delivered rows that the cluster had already.
   */
  uint64_t duplicates;
  /**
   * Starts after which the store was found not closed in order.
   */
  uint64_t unclean_ends;
  /**
   * Times the store was damaged, set aside and begun anew.
   */
  uint64_t store_resets;
  /**
   * Turns of the worker thread in which the store failed.
   */
  uint64_t store_errors;
  /**
   * Failed requests to the cluster.
   */
  uint64_t sink_errors;
  /**
   * Reloads.
   */
  uint64_t reloads;
  /**
   * Events that the queue can hold; a gauge.
   */
  uint64_t queue_capacity;
} mlb_stats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the ABI that the library has. Never fails.
 */
uint32_t mlb_abi_version(void);

/**
 * The version of the library, for example "0.1.0". Static text.
 */
const char *mlb_version(void);

/**
 * What a status means, in a few words. Static text, never NULL, whatever the number.
 */
const char *mlb_strerror(int status);

/**
 * Makes settings with all defaults. Free them with mlb_config_free().
 * MLB_E_INVALID if out is NULL.
 */
MLB_MUST_USE
enum mlb_status mlb_config_new(struct mlb_config **out);

/**
 * Sets one setting. Keys and values are those of the README's table; a list is separated by commas; a later value
 * replaces an earlier one.
 * MLB_E_CONFIG for an unknown key or a bad value (the settings are then unchanged), MLB_E_INVALID for NULL or for text
 * that is not UTF-8. err (may be NULL with 0) gets a text that names the key and the value.
 */
MLB_MUST_USE
enum mlb_status mlb_config_set(struct mlb_config *cfg,
                               const char *key,
                               const char *value,
                               char *err,
                               size_t err_len);

/**
 * Reads settings from a TOML file, whose tables and keys are the README's; relative paths in it begin at its folder.
 * All of it counts, or nothing.
 * MLB_E_IO if it cannot be read or if others than its owner may write to it, MLB_E_CONFIG for what it says,
 * MLB_E_INVALID for NULL. err gets a text that names file, key and value.
 */
MLB_MUST_USE
enum mlb_status mlb_config_load(struct mlb_config *cfg,
                                const char *path,
                                char *err,
                                size_t err_len);

/**
 * Frees settings; engines made from them do not need them. NULL is fine.
 */
void mlb_config_free(struct mlb_config *cfg);

/**
 * Makes an engine, or another handle to the one of the same instance and settings (rule 6). cfg NULL: all defaults, the
 * embedded model, nothing written. Reads files, connects to nothing, starts no thread, leaves nothing behind.
 * MLB_E_CONFIG, MLB_E_IO or MLB_E_MODEL with a text in err; *out is then NULL. MLB_E_INVALID if out is NULL.
 */
MLB_MUST_USE
enum mlb_status mlb_init(const struct mlb_config *cfg,
                         struct mlb_engine **out,
                         char *err,
                         size_t err_len);

/**
 * Puts other settings in force in one step, in every thread. On an error the old ones stay. instance and state_dir
 * cannot change.
 * MLB_E_CONFIG, MLB_E_IO or MLB_E_MODEL with a text in err; MLB_E_INVALID if engine is NULL. cfg NULL: all defaults.
 */
MLB_MUST_USE
enum mlb_status mlb_reload(const struct mlb_engine *engine,
                           const struct mlb_config *cfg,
                           char *err,
                           size_t err_len);

/**
 * Gives a handle back. With the last one of an engine, what is queued is stored and the worker thread ends; that takes
 * close_timeout_ms at most, and nothing in a forked child. NULL is fine. Call it only after the last call with this
 * handle has returned.
 */
void mlb_free(struct mlb_engine *engine);

/**
 * Another handle to the newest engine of an instance, also to one at rest (rule 6). Never fails for the store's sake.
 * MLB_E_INVALID if the instance never had an engine, or for NULL; *out is then NULL.
 */
MLB_MUST_USE
enum mlb_status mlb_attach(const char *instance,
                           struct mlb_engine **out);

/**
 * The verdict on a name in text form: name_len bytes, final dot optional, master-file escapes decoded, Unicode
 * converted to A-labels. client: 0, 4 or 16 bytes in network order (NULL with 0). qtype is recorded and decides
 * nothing. Never waits, does no I/O.
 * MLB_E_NAME if it is no name, MLB_E_INVALID for an impossible argument, MLB_E_PANIC; *out is then all zero.
 */
MLB_MUST_USE
enum mlb_status mlb_classify(const struct mlb_engine *engine,
                             const char *name,
                             size_t name_len,
                             const uint8_t *client,
                             size_t client_len,
                             uint16_t qtype,
                             struct mlb_verdict *out);

/**
 * As mlb_classify(), for a name in uncompressed wire form, root label included.
 */
MLB_MUST_USE
enum mlb_status mlb_classify_wire(const struct mlb_engine *engine,
                                  const uint8_t *qname,
                                  size_t qname_len,
                                  const uint8_t *client,
                                  size_t client_len,
                                  uint16_t qtype,
                                  struct mlb_verdict *out);

/**
 * The model's scores of count names in text form, 0 to 1; NaN where there is no name (NULL included). No policy, no
 * events, not counted. With batch.threads other than 1 it works in so many threads until it returns.
 * MLB_E_INVALID for NULL or an absurd count, MLB_E_MODEL if the model fails; nothing is then to be read from scores.
 */
MLB_MUST_USE
enum mlb_status mlb_score_batch(const struct mlb_engine *engine,
                                const char *const *names,
                                const size_t *name_lens,
                                size_t count,
                                float *scores);

/**
 * The verdict on a name with its reasons, as one JSON object in buf, NUL-terminated. Records nothing. *need (may be
 * NULL) gets the size needed, NUL included.
 * MLB_E_RANGE if buf_len is smaller than that (ask with NULL and 0), MLB_E_NAME, MLB_E_MODEL, MLB_E_INVALID.
 */
MLB_MUST_USE
enum mlb_status mlb_explain(const struct mlb_engine *engine,
                            const char *name,
                            size_t name_len,
                            char *buf,
                            size_t buf_len,
                            size_t *need);

/**
 * Waits until what was classified before is durable in the store; without state_dir, until the cluster acknowledged it.
 * MLB_E_TIMEOUT after timeout_ms, MLB_E_BUSY while another process holds the store, MLB_E_FORKED in a forked child,
 * MLB_E_IO for the store's error. Not for the path of a query.
 */
MLB_MUST_USE
enum mlb_status mlb_flush(const struct mlb_engine *engine,
                          uint32_t timeout_ms);

/**
 * The counters. Fills the smaller of out_size and the library's own size, and zeroes the rest of out.
 * MLB_E_INVALID for NULL, or an out_size over 65536.
 */
MLB_MUST_USE
enum mlb_status mlb_stats_get(const struct mlb_engine *engine,
                              struct mlb_stats *out,
                              size_t out_size);

/**
 * The counters as Prometheus text (exposition format 0.0.4), NUL-terminated. *need as for mlb_explain().
 * MLB_E_RANGE if buf_len is too small, MLB_E_INVALID.
 */
MLB_MUST_USE
enum mlb_status mlb_metrics(const struct mlb_engine *engine,
                            char *buf,
                            size_t buf_len,
                            size_t *need);

/**
 * What keeps events from the store or the cluster, in words to act on; "" if nothing does. Cut to buf_len.
 * MLB_E_INVALID for NULL or 0.
 */
MLB_MUST_USE
enum mlb_status mlb_sink_error(const struct mlb_engine *engine,
                               char *buf,
                               size_t buf_len);

/**
 * The next message for the host's log, cut to buf_len, and its syslog level in *level (may be NULL): 3 error, 4 warning,
 * 5 notice. "" if there is none. A verdict's MLB_FLAG_MESSAGE says that one waits; nobody needs to poll.
 * MLB_E_INVALID for NULL or 0.
 */
MLB_MUST_USE
enum mlb_status mlb_message(const struct mlb_engine *engine,
                            char *buf,
                            size_t buf_len,
                            int *level);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MLBRIDGE_H */

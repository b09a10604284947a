/* The layout that every client compiled against any 0.x header relies on, as this compiler sees the header of today.
 * Nothing runs: it compiles or it does not. Names and values stand here once more on purpose. */
#include <stddef.h>

#include "mlbridge.h"

#define SAME(name, condition) extern char layout_##name[(condition) ? 1 : -1]

SAME(verdict_size, sizeof(mlb_verdict) == 64);
SAME(verdict_score, offsetof(mlb_verdict, score) == 0);
SAME(verdict_label, offsetof(mlb_verdict, label) == 4);
SAME(verdict_decision, offsetof(mlb_verdict, decision) == 5);
SAME(verdict_action, offsetof(mlb_verdict, action) == 6);
SAME(verdict_source, offsetof(mlb_verdict, source) == 7);
SAME(verdict_flags, offsetof(mlb_verdict, flags) == 8);
SAME(verdict_ttl, offsetof(mlb_verdict, ttl) == 12);
SAME(verdict_sinkhole4, offsetof(mlb_verdict, sinkhole4) == 16);
SAME(verdict_sinkhole6, offsetof(mlb_verdict, sinkhole6) == 20);
SAME(verdict_fpr, offsetof(mlb_verdict, fpr) == 36);
SAME(verdict_model, offsetof(mlb_verdict, model) == 40);
SAME(verdict_reserved, offsetof(mlb_verdict, reserved) == 48);

SAME(status_size, sizeof(mlb_status) == sizeof(int));
SAME(abi_version, MLB_ABI_VERSION == 1);
SAME(ok, MLB_OK == 0);
SAME(invalid, MLB_E_INVALID == 1);
SAME(name, MLB_E_NAME == 2);
SAME(config, MLB_E_CONFIG == 3);
SAME(io, MLB_E_IO == 4);
SAME(model, MLB_E_MODEL == 5);
SAME(timeout, MLB_E_TIMEOUT == 6);
SAME(range, MLB_E_RANGE == 7);
SAME(forked, MLB_E_FORKED == 8);
SAME(busy, MLB_E_BUSY == 9);
SAME(panic, MLB_E_PANIC == 10);
SAME(labels, MLB_BENIGN == 0 && MLB_MALICIOUS == 1);
SAME(decisions, MLB_ALLOW == 0 && MLB_VET == 1 && MLB_BLOCK == 2);
SAME(actions, MLB_PASS == 0 && MLB_NXDOMAIN == 1 && MLB_NODATA == 2 && MLB_REFUSED == 3 && MLB_SINKHOLE == 4 && MLB_DROP == 5);
SAME(sources, MLB_SOURCE_MODEL == 0 && MLB_SOURCE_OVERRIDE == 1 && MLB_SOURCE_BLOCKLIST == 2 && MLB_SOURCE_ALLOWLIST == 3 && MLB_SOURCE_POPULAR == 4 && MLB_SOURCE_SKIPPED == 5);
SAME(flags, MLB_FLAG_CACHED == 1 && MLB_FLAG_OBSERVED == 2 && MLB_FLAG_FAIL_OPEN == 4 && MLB_FLAG_BREAKER == 8 && MLB_FLAG_DROPPED == 16 && MLB_FLAG_MESSAGE == 32);

/* mlb_stats only grows at its end: the first and the last counter of the first release stay where they were. */
SAME(stats_counters, sizeof(mlb_stats) % 8 == 0);
SAME(stats_first, offsetof(mlb_stats, classified) == 0);
SAME(stats_stored, offsetof(mlb_stats, stored) == 23 * 8);
SAME(stats_last_of_0_1_0, offsetof(mlb_stats, queue_capacity) == 35 * 8);

/* The prototypes, to the last const. */
typedef mlb_status classify_call(const mlb_engine *, const char *, size_t, const uint8_t *, size_t, uint16_t, mlb_verdict *);
typedef mlb_status wire_call(const mlb_engine *, const uint8_t *, size_t, const uint8_t *, size_t, uint16_t, mlb_verdict *);
typedef mlb_status text_call(const mlb_engine *, char *, size_t, size_t *);
extern classify_call mlb_classify;
extern wire_call mlb_classify_wire;
extern text_call mlb_metrics;
uint32_t mlb_abi_version(void);
const char *mlb_version(void);
const char *mlb_strerror(int);
mlb_status mlb_config_new(mlb_config **);
mlb_status mlb_config_set(mlb_config *, const char *, const char *, char *, size_t);
mlb_status mlb_config_load(mlb_config *, const char *, char *, size_t);
void mlb_config_free(mlb_config *);
mlb_status mlb_init(const mlb_config *, mlb_engine **, char *, size_t);
mlb_status mlb_reload(const mlb_engine *, const mlb_config *, char *, size_t);
void mlb_free(mlb_engine *);
mlb_status mlb_attach(const char *, mlb_engine **);
mlb_status mlb_score_batch(const mlb_engine *, const char *const *, const size_t *, size_t, float *);
mlb_status mlb_explain(const mlb_engine *, const char *, size_t, char *, size_t, size_t *);
mlb_status mlb_flush(const mlb_engine *, uint32_t);
mlb_status mlb_stats_get(const mlb_engine *, mlb_stats *, size_t);
mlb_status mlb_sink_error(const mlb_engine *, char *, size_t);
mlb_status mlb_message(const mlb_engine *, char *, size_t, int *);

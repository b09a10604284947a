"""mlbridge in Unbound: the script for `python-script`, for Debian's stock `unbound` with `python3-unbound`.

Each client's query is judged before it is resolved and answered as the verdict says; queries that Unbound makes for
itself are left alone. Answers from the message cache never reach a module, so a callback judges them: they are
recorded like all others, and where the verdict is no longer "pass" the cache entry is expired, so that the next query
is blocked.

The settings are in `mlbridge.toml` beside the script, as `python-script` names it (a symbolic link is not followed for
that, so the script may live in /usr/lib and be linked from /etc/unbound). The package `mlbridge` is looked for in the
folder where the script really is, then on Python's path. README.md has the installation.

Guarantees: an error of ours never costs an answer, the query passes. A reload whose settings fail goes on with the last
good ones. A first start whose settings fail is refused, with the reason in the log. Not done: a query can not be
dropped in Unbound, so the action `drop` answers REFUSED; CNAME targets are not judged; of several clients who ask the
same question while it is being resolved only the first is judged.
"""

import os
import sys
import time

import unboundmodule

SCRIPT = os.path.abspath(__file__)
CONFIG = os.path.join(os.path.dirname(SCRIPT), "mlbridge.toml")

sys.path.insert(0, os.path.dirname(os.path.realpath(SCRIPT)))

import mlbridge  # noqa: E402  (its place is only known now)

INSTANCE = "unbound"
CALLBACK_OF_PROCESS = "MLBRIDGE_UNBOUND_CALLBACK"
SECONDS_BETWEEN_REPORTS = 10.0
MESSAGES_AT_ONCE = 16
SEC_STATUS_INDETERMINATE = 2
PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")

_engine = None
_last_report = -SECONDS_BETWEEN_REPORTS


def init_standard(id, env):
    """Unbound's start and each reload. An exception is Unbound's only sign of failure: it then does not start."""
    global _engine
    _engine = _open_engine()
    _relay_messages()
    _register_cache_callback(id, env)
    return True


def deinit(id):
    """Unbound's end and each reload: it finalises the interpreter next."""
    global _engine
    if _engine is not None:
        _engine.close()
        _engine = None
    return True


def inform_super(id, qstate, superqstate, qdata):
    """A sub-query ended; this module starts none."""
    return True


def operate(id, event, qstate, qdata):
    """Called for each query that the message cache does not answer."""
    if event == unboundmodule.MODULE_EVENT_MODDONE:
        qstate.ext_state[id] = unboundmodule.MODULE_FINISHED
        return True
    if event not in (unboundmodule.MODULE_EVENT_NEW, unboundmodule.MODULE_EVENT_PASS):
        qstate.ext_state[id] = unboundmodule.MODULE_ERROR
        return True
    answered = False
    try:
        answered = _answer(qstate)
    except Exception as error:
        _report(error)
    qstate.ext_state[id] = unboundmodule.MODULE_FINISHED if answered else unboundmodule.MODULE_WAIT_MODULE
    return True


def _open_engine():
    """The engine of the settings as they are now, else the last good one of this process."""
    try:
        return mlbridge.Engine(config=CONFIG, instance=INSTANCE)
    except Exception as error:
        reason = str(error)
    try:
        engine = mlbridge.Engine.attach(INSTANCE)
    except mlbridge.Error:
        # Unbound takes only ASCII out of a traceback.
        raise RuntimeError(ascii("mlbridge: " + reason)) from None
    _log(3, reason + "; the settings from before stay in force")
    return engine


def _answer(qstate):
    """Whether the query is answered here; if not, the next module goes on with it."""
    reply = qstate.mesh_info.reply_list
    if reply is None:
        return False
    verdict = _judge(qstate.qinfo, reply.query_reply)
    if verdict is None or verdict.action == mlbridge.Action.PASS:
        return False
    if not _make_answer(qstate, verdict):
        _log(4, "an answer could not be made up; NXDOMAIN without SOA is sent instead")
        qstate.return_rcode = unboundmodule.RCODE_NXDOMAIN
    return True


def _judge(qinfo, reply):
    """The verdict for one client's question, or None for classes other than IN."""
    if qinfo.qclass != unboundmodule.RR_CLASS_IN:
        return None
    verdict = _engine.classify_wire(qinfo.qname, reply._addr.raw_addr, qinfo.qtype)
    if verdict.flags & mlbridge.Flag.MESSAGE:
        _relay_messages()
    return verdict


def _make_answer(qstate, verdict):
    """Puts the answer for an action other than pass into the query's state; false if Unbound refuses it."""
    action = verdict.action
    if action in (mlbridge.Action.REFUSED, mlbridge.Action.DROP):
        qstate.return_rcode = unboundmodule.RCODE_REFUSED
        return True
    qinfo = qstate.qinfo
    owner = _presentation(qinfo.qname)
    flags = unboundmodule.PKT_QR | unboundmodule.PKT_RA
    message = unboundmodule.DNSMessage(owner, qinfo.qtype, qinfo.qclass, flags)
    address = _sinkhole_address(verdict, qinfo.qtype) if action == mlbridge.Action.SINKHOLE else None
    if address is not None:
        message.answer.append(f"{owner} {verdict.ttl} IN {qinfo.qtype_str} {address}")
    else:
        # The SOA lets clients keep the negative answer (RFC 2308); it names the question itself, so that nothing
        # above or beside the name is denied.
        soa = f"mlbridge.invalid. nobody.invalid. 1 3600 600 86400 {verdict.ttl}"
        message.authority.append(f"{owner} {verdict.ttl} IN SOA {soa}")
    if not message.set_return_msg(qstate):
        return False
    # Where Unbound validates, an unchecked answer would become SERVFAIL. This is no claim of validation: no AD bit.
    qstate.return_msg.rep.security = SEC_STATUS_INDETERMINATE
    if action == mlbridge.Action.NXDOMAIN:
        qstate.return_msg.rep.flags = qstate.return_msg.rep.flags | unboundmodule.RCODE_NXDOMAIN
    qstate.return_rcode = unboundmodule.RCODE_NOERROR
    return True


def _sinkhole_address(verdict, qtype):
    if qtype == unboundmodule.RR_TYPE_A:
        return verdict.sinkhole4
    if qtype == unboundmodule.RR_TYPE_AAAA:
        return verdict.sinkhole6
    return None


def _presentation(qname):
    """A wire-form name as text, every byte that is not plain written as \\DDD. (Unbound's own would lose them.)"""
    labels = []
    position = 0
    while qname[position]:
        end = position + 1 + qname[position]
        labels.append("".join(chr(byte) if byte in PLAIN else f"\\{byte:03d}" for byte in qname[position + 1 : end]))
        position = end
    return ".".join(labels) + "."


def mlbridge_cache_hit(qinfo, qstate, rep, rcode, edns, opt_list_out, region, **named):
    """Judges an answer about to be sent from the message cache. It can not change that answer any more."""
    try:
        verdict = _judge(qinfo, named["repinfo"])
        if verdict is not None and verdict.action != mlbridge.Action.PASS:
            rep.ttl = 0
    except Exception as error:
        _report(error)
    return 1


def _register_cache_callback(id, env):
    """Registers the callback for cache hits once a process.

    Unbound 1.17 keeps the callbacks of before a reload and calls them all, while it throws the interpreter away that
    they were made in. So one callback is made that outlives its interpreter: it uses nothing but its two closure
    variables, C functions of the interpreter's core, to find the function of the script that is loaded now. That it
    was registered is noted in the environment, the one place of the process that the next interpreter sees too.
    """
    process = str(os.getpid())
    if os.environ.get(CALLBACK_OF_PROCESS) == process:
        return
    if not unboundmodule.register_inplace_cb_reply_cache(_lasting_callback(__import__, getattr), env, id):
        raise RuntimeError("mlbridge: the callback for cache hits was refused")
    os.environ[CALLBACK_OF_PROCESS] = process


def _lasting_callback(load, attribute):
    def callback(*arguments, **named):
        function = attribute(load("__main__"), "mlbridge_cache_hit", None)
        if function is None:
            return 1
        return function(*arguments, **named)

    return callback


def _relay_messages():
    """Writes what the library has to say into Unbound's log."""
    for _ in range(MESSAGES_AT_ONCE):
        message = _engine.message()
        if message is None:
            return
        _log(message.level, message.text)


def _log(level, text):
    """Writes a line at a syslog level; Unbound knows three of them."""
    line = ("mlbridge: " + text).encode("utf-8", "replace").decode("utf-8")
    if level <= 3:
        unboundmodule.log_err(line)
    elif level == 4:
        unboundmodule.log_warn(line)
    else:
        unboundmodule.log_info(line)


def _report(error):
    """Logs an internal failure, but not once a query."""
    global _last_report
    now = time.monotonic()
    if now - _last_report >= SECONDS_BETWEEN_REPORTS:
        _last_report = now
        _log(3, f"{type(error).__name__}: {error}; the query passes")

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Keep dumps of any stream in Amazon S3, or in a server that speaks S3.

  s3dump.py init                                 create the bucket, and try it
  s3dump.py dump /home 0 -- tar -cz -C / home    store a full dump, of today
  s3dump.py restore /home 0 -- tar -xz -C /mnt   bring the newest one back
  s3dump.py list                                 what is there, and its price
  s3dump.py clean 3                              keep three of each

The names of dumps, the commands and what is printed are in this file; s3.py, which must
lie beside it, talks to the server.
"""
import gc
import os
import signal
import sys


def explain(kind, error, place):
    """Print a line in place of a traceback if the rest can't be loaded."""
    if not issubclass(kind, (ImportError, MemoryError)):
        sys.__excepthook__(kind, error, place)
    elif sys.stderr:                # see s3.write_error(), which may not be there
        try:
            os.write(2, b's3dump: out of memory, or not all of it is here: %s\n' % (
                str(error or kind).encode('utf-8', 'backslashreplace')))
        except OSError:
            pass


if __name__ == '__main__':
    gc.set_threshold(50000)         # what is loaded stays
    sys.excepthook = explain
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)    # no traceback while the rest is loaded

import argparse  # noqa: E402
import collections  # noqa: E402
import contextlib  # noqa: E402
import functools  # noqa: E402
import itertools  # noqa: E402
import re  # noqa: E402
import select  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402

# In isolated mode (-I), through a link in /usr/local/bin, or beside another module called
# s3, Python would not find ours.
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import s3  # noqa: E402


# ---------------------------------------------------------------- The names of dumps
#
#   HOST:FS:LEVEL:DATE:STAMP-RANDOM     a dump; what didn't fit goes on in KEY.volume_000001
#                                       and so on, closed by an empty KEY.end_NNNNNN
#   HOST:FS:LEVEL:DATE                  the same with --fixed-key, and of older versions
#   HOST:FS:LEVEL:DATE/chunk_000000     a dump in pieces, of older versions
#   HOST:FS:LEVEL:DATE:0                the same, still older

KEY = re.compile(r'([^:/]+):([^:]+?)/?:([+-]?[0-9]{1,100}):'    # `/home/` is `/home`
                 r'([0-9]{4}-[0-9]{2}-[0-9]{2})(?::([0-9]{8}T[0-9]{6}\.[0-9]{3}Z)-[0-9a-z]{16,})?\Z')
PIECE = r'(?s)(.*)(\.volume_|\.end_|/chunk_|:)([0-9]{1,18})\Z'      # compiled when first needed
MAX_KEY = 1000                      # bytes; S3 takes 1,024, and volumes need the rest

Labels = collections.namedtuple('Labels', 'host fs level date stamp')


class UsageError(Exception):
    """The command line is wrong: exit status 2."""


def parse_key(key):
    match = KEY.match(key)
    return Labels(*match.groups()) if match and real_date(match.group(4)) else None


def parse_piece(key):
    """Return (key of the dump, the text between it and the number, number), or None."""
    match = re.match(PIECE, key)
    piece = match and (match.group(1), match.group(2), int(match.group(3)))
    return piece if piece and piece_key(*piece) == key else None


def piece_key(key, layout, number):
    """Return the key of a piece of the dump *key*; volume 0 is the dump itself."""
    if layout == '.volume_':
        return s3.volume_key(key, number)
    return key + layout + ('%d' if layout == ':' else '%06d') % number


@functools.lru_cache(maxsize=4096)   # the keys of a listing have the same few dates
def real_date(text):
    """Return the datetime.date that YYYY-MM-DD means, None if it isn't in the calendar."""
    import datetime
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        date = datetime.date(*map(int, text.split('-')))
        return date if str(date) == text else None


def without_slash(fs):
    """Return FS as the label is: `/home/`, as shells complete it, is `/home`."""
    return fs.rstrip('/') or fs[:1]


def check_labels(labels):
    """Raise UsageError for a label that a key can't hold (None is not given)."""
    for name, label, forbidden in (('host label', labels.host, ':/'), ('FS', labels.fs, ':')):
        if label == '':
            raise UsageError('the %s is empty' % name)
        for c in label or '':
            if c in forbidden or ord(c) < 32 or 127 <= ord(c) < 160:
                raise UsageError('%s %s may not hold %s' % (name, s3.quoted(label), s3.quoted(c)))
    if labels.level is not None and not re.match(r'[+-]?[0-9]{1,100}\Z', labels.level):
        raise UsageError('LEVEL %s is not an integer' % s3.quoted(labels.level))
    if labels.date is not None and not real_date(labels.date):
        raise UsageError('%s is not a date like 2009-12-31' % s3.quoted(labels.date))


def new_key(args, now):
    """Return the key of a new dump; now: seconds since the epoch, by the server's clock."""
    key = ':'.join([args.host, args.fs, args.level, args.date or local(now)[:10]])
    if args.fixed_key:
        return key
    stamp = time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))
    return '%s:%s.%03dZ-%s' % (key, stamp, now % 1 * 1000, s3.random_name())


class Dump:
    """A dump in the bucket: its labels (None for a key that has none) and its objects.

    pieces: {number: ListEntry}, in `volumes` from 0, the object under the key itself.
    ends: {number that it names: ListEntry} of its end marks; strays: see look_closer().
    """
    # a file system may have 90,000, by the hour
    __slots__ = ('key', 'layout', 'labels', 'pieces', 'ends', 'strays', 'volume_size', 'bare',
                 'doubtful', 'unreadable', 'lock', 'last_lock')

    def __init__(self, key, layout, labels=None, first=None):
        self.key, self.layout, self.labels = key, layout, labels
        self.pieces, self.ends, self.strays = {0: first} if first else {}, {}, ()
        self.volume_size = 0        # as its first object tells; 0 if unknown
        self.bare = False           # whether its first object has none of our metadata
        self.doubtful = False       # whether the metadata of the others don't agree
        self.unreadable = False     # whether its first object is known to be archived
        self.lock = self.last_lock = 0      # see find_locks()

    def __str__(self):
        return s3.printable(self.key)

    def add(self, layout, number, entry):
        """Count an object in, whose key has *layout* and *number* behind that of the dump."""
        (self.ends if layout == '.end_' else self.pieces)[number] = entry

    @property
    def size(self):
        return sum([entry.size for entry in self.pieces.values()])

    @property
    def stored(self):
        """When the dump was stored, in seconds since the epoch: LastModified, or the stamp in its
        key if that is earlier, for the LastModified of a copy is the day when it was copied."""
        modified = self.pieces[0].modified if self.layout == '.volume_' else max(
            entry.modified for entry in self.pieces.values())
        return min(modified, stamp_time(self.labels and self.labels.stamp, modified))

    @property
    def youngest(self):
        """When the last of its objects was stored, in seconds since the epoch."""
        return max(entry.modified for entry in self.entries)

    @property
    def keys(self):
        return [self.pieces[number].key for number in sorted(self.pieces)]

    @property
    def entries(self):
        """The entries of all its objects: the first one, whose loss ends the dump, comes first, and
        the others share its class unless somebody changed that."""
        return [*self.own, *self.strays]

    @property
    def own(self):
        """The same without strays."""
        return [*map(self.pieces.get, sorted(self.pieces)), *self.ends.values()]

    @property
    def deleted(self):
        """When the first of its objects was hidden, in seconds since the epoch, or 0."""
        return min((entry.above[-1].modified for entry in self.own if entry.above), default=0)

    @property
    def storage_class(self):
        return (self.pieces.get(0) or (self.own or self.strays)[0]).storage_class

    def state(self):
        """Return text: the storage class, and whether it can be read; '' for STANDARD."""
        if self.storage_class == 'STANDARD':
            return ''
        states = {entry.restore for entry in self.pieces.values()}
        return '  %s%s' % (s3.printable(self.storage_class), {
            'done': ' (readable now)', 'ongoing': ' (being restored)'}.get(
                'ongoing' if 'ongoing' in states else min(states),
                ' (not readable now)' if self.unreadable else ''))

    def problem(self):
        """Return why the dump can't be restored, as far as names and sizes tell, or ''."""
        if self.doubtful:
            return 'its first object has no metadata, and the others are not of one dump'
        missing = set(range(len(self.pieces) or 1)) - set(self.pieces)
        if missing:
            return '%s is missing' % s3.quoted(piece_key(self.key, self.layout, min(missing)))
        last = len(self.pieces) - 1
        if self.layout == '.volume_' and not (last or self.ends):
            if 0 < self.volume_size <= self.size:
                return 'it is as large as a volume can be, and neither a further one nor an end ' \
                    'mark is there'
        elif self.layout == '.volume_':
            if not self.ends:
                return 'its end mark is missing, so further volumes may be'
            if list(self.ends) != [last]:
                return 'its last volume is number %d, but an end mark says %d' % (
                    last, min(set(self.ends) - {last}))
            full = self.volume_size or self.pieces[0].size
            for number, entry in sorted(self.pieces.items()):
                # The end mark of one object alone says that it is full
                if entry.size > full or (entry.size < full and (number < last or not last)) or (
                        number and not entry.size):
                    return '%s has %s, but a full volume %d' % (
                        s3.quoted(entry.key), counted(entry.size, 'byte'), full)
        return ''

    def misdated(self):
        """Whether its date label is more than a day after the UTC day on which it was stored.  A
        thief who may only write could date his dump so, to have it taken for the newest."""
        return self.labels.date > s3.utc(self.stored + 86400)[:10]

    def look_closer(self, head, bucket):
        """Set apart the strays: objects named like volumes of this dump that belong to another, and
        are only deleted with it.  Else whoever may only write, or the remains of a refused dump,
        could spoil one whose key can be guessed.  head: the s3.Head of the first object."""
        self.volume_size = head.number('volume-size')
        heads = {entry: bucket.head_object(entry.key) for entry in self.entries[1:]}
        if not head.has_metadata:   # a copy; `aws s3 sync` keeps them with small objects only
            told = {(other.dump_id, other.number('volume-size')) for other in heads.values()
                    if other.has_metadata}
            self.bare, self.doubtful = True, len(told) > 1
            self.volume_size = max(told)[1] if told else 0
        elif head.dump_id or head.alone:
            self.strays = [entry for entry, other in heads.items()
                           if not other.dump_id or other.dump_id != head.dump_id]
            self.pieces, self.ends = ({number: entry for number, entry in entries.items()
                                       if entry not in self.strays}
                                      for entries in (self.pieces, self.ends))


def stamp_time(stamp, otherwise):
    """Return the seconds since the epoch of a key's stamp, *otherwise* if it can't be true."""
    try:
        seconds = s3.parse_time(stamp) if stamp else 0
    except ValueError:              # somebody made this key by hand
        return otherwise
    return seconds if seconds > s3.BIRTH_OF_S3 else otherwise


def group(entries):
    """Return the objects of a listing as (dumps, orphans, others): orphans are Dumps of volumes
    without a first object, as a crash leaves them, others the entries that belong to no dump."""
    dumps, others = {}, []
    for entry in entries:
        key, layout, number = entry.key, '.volume_', 0
        labels = parse_key(key)
        if not labels:
            key, layout, number = parse_piece(key) or ('', layout, 0)
            labels = parse_key(key)
        if not labels:
            others.append(entry)
            continue
        place = key, '.volume_' if layout == '.end_' else layout
        if place not in dumps:
            dumps[place] = Dump(*place, labels)
        dumps[place].add(layout, number, entry)
    whole, orphans = [], []
    for dump in dumps.values():
        (whole if 0 in dump.pieces or dump.layout != '.volume_' else orphans).append(dump)
    return whole, orphans, others


def sections(entries):
    """Yield group() for each host and file system.  Listings are sorted by key, so one section at
    a time is enough in memory; one with a slash at the end of FS, as older versions wrote it,
    waits for the one without, or for the next host."""
    begin = list(itertools.islice(entries, 20))
    entries = itertools.chain(begin, entries)
    if any(one.key > other.key for one, other in zip(begin, begin[1:])):    # Storj's are not
        entries = sorted(entries, key=lambda entry: entry.key)
    for _, of_host in itertools.groupby(entries, lambda entry: entry.key.partition(':')[0]):
        slashed = collections.defaultdict(list)
        for place, section in itertools.groupby(of_host, lambda entry: entry.key.split(':', 2)[:2]):
            fs = without_slash(place[-1])
            if fs == place[-1]:
                yield group(itertools.chain(slashed.pop(fs, ()), section))
            else:
                slashed[fs] += section
        yield from map(group, slashed.values())


def recency(dump):
    """Return what dumps are sorted by: the key last, so that there is only one order."""
    return dump.labels.date, dump.stored, dump.labels.stamp or '', dump.key


def chains(dumps):
    """Yield, for each of *dumps*, the list of those that it takes to restore it, in order, itself
    at the end.  As with dump(8), a dump builds upon the newest before it of a lower level.  One
    list is used for all: copy what you keep."""
    chain = []
    for one in sorted(dumps, key=lambda one: (one.labels[:2], recency(one))):
        while chain and (chain[-1].labels[:2] != one.labels[:2]
                         or int(chain[-1].labels.level) >= int(one.labels.level)):
            chain.pop()
        chain.append(one)
        yield chain


# ------------------------------------------------------------------- What is printed

def tell(text):
    """Write *text* to standard error, as soon as somebody reads that, but don't wait once a signal
    came.  Return whether that worked."""
    with contextlib.suppress(OSError):      # without memory for poll(), we may have to wait
        while s3.in_main_thread() and not s3.ready([2], select.POLLOUT, 0.25):
            if SIGNALS.came:
                return False
    return s3.write_error(text)


def say(text, quiet=False):
    """Print a line on standard error, unless *quiet*."""
    if not quiet:
        tell('%ss3dump: %s\n' % (Status.CLEAR if Status.live else '', text))


def print_out(text):
    """Print a line on standard output: UTF-8, whatever the locale."""
    text = (Status.CLEAR if Status.live and os.isatty(1) else '') + text + '\n'
    write_out(memoryview(text.encode('utf-8', 'backslashreplace')))


def to_json(**fields):
    import json
    return json.dumps(fields)


def human(count):
    """Return text for a number of bytes, like 14.0k or 5.5G."""
    if count < 1024:
        return '%d' % count
    for unit in 'kMGTP':
        count /= 1024
        if count < 1023.95:
            break
    return '%.1f%s' % (count, unit)


def elapsed(seconds):
    """Return text for seconds, like 0:07 or 1:02:03."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return '%d:%02d:%02d' % (hours, minutes, seconds) if hours else '%d:%02d' % (minutes, seconds)


def local(seconds):
    """Return a time as --at takes it."""
    return time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))


def counted(count, one, many=None):
    return '%d %s' % (count, one if count == 1 else many or one + 's')


# ------------------------------------------------------------------ Finding one dump

@contextlib.contextmanager
def tolerating(*statuses):
    """Go on if the server refuses with one of *statuses*: what nobody shows us is not there."""
    try:
        yield
    except s3.ResponseError as error:
        if error.status not in statuses:
            raise


def find_fs(bucket, args, rest=''):
    """Return group() of the objects of the command line's host and FS whose keys go on with *rest*,
    also of those with a slash at the end of FS, which older versions kept."""
    found = list(bucket.list_objects(':'.join([args.host, args.fs, rest])))
    with tolerating(403):
        found += list(bucket.list_objects(':'.join([args.host, args.fs + '/', rest])))
    return group(found)


def meant(args, dumps):
    """Return those of *dumps* with the labels that the command line gives."""
    given = None if args.all else args.host, args.fs, args.level, args.date
    return [one for one in dumps if all(
        label in (None, its) for label, its in zip(given, one.labels))]


def find_all(bucket, args):
    """Return the dumps with the labels of the command line."""
    return meant(args, find_fs(bucket, args, '%s:%s' % (args.level, args.date or ''))[0])


def no_dump(args, hint=''):
    hint = hint or ('; `s3dump.py list` shows what is there, `list --deleted` what was' if (
        args.at is None) else '; `s3dump.py list --at` shows what was there then')
    return s3.Error('no dump of %s%s%s for host %s%s%s' % (
        s3.quoted(args.fs), ' level ' + args.level if args.level else '',
        (' up to ' if args.chain else ' of ') + args.date if args.date else '',
        s3.printable(args.host), ' (-h NAME: another)' * (args.host == args.here), hint))


def find_whole(bucket, args):
    """Return the Dump that the command line means: of -k KEY, or the newest with its labels; raises
    IntegrityError if it isn't whole."""
    if args.key is not None:
        return check_whole(find_by_key(bucket, args.key, may_list=False))
    section = find_fs(bucket, args)[0] if args.name == 'restore' and int(args.level) > 0 else None
    dumps = find_all(bucket, args) if section is None else meant(args, section)
    dumps = well_dated(dumps) or dumps      # with a wrong server clock none passes: take all
    if not dumps:
        raise no_dump(args)
    newest = max(dumps, key=recency)
    if section:
        tell_base(newest, section, args.quiet)
    return check_whole(without_strays(bucket, newest, alone=True))


def find_chain(bucket, args):
    """Return the Dumps that it takes to restore the newest one of FS, up to the date of the command
    line, in that order; raises Error if they don't begin with a full one."""
    dumps = [one for one in find_fs(bucket, args)[0]
             if one.labels.date <= (args.date or one.labels.date)]
    *_, chain = ([], *chains(well_dated(dumps) or dumps))
    if not chain:
        raise no_dump(args)
    if int(chain[0].labels.level) > 0:
        raise s3.Error('%s builds upon a dump of level 0, and none is here' % chain[0])
    return [check_whole(without_strays(bucket, one, alone=True)) for one in chain]


def tell_base(one, section, quiet):
    """Say which dump this one builds upon, and warn of a newer one of a lower level: after that,
    `tar -g /dev/null` would delete files."""
    section = [other for other in section if other is one or not other.misdated()]
    base = next(chain[-2:-1] for chain in chains(section) if chain[-1] is one)
    *_, chain = chains(section)
    newest = [lower for lower in chain if int(lower.labels.level) < int(one.labels.level)][-1:]
    say('%s builds upon %s' % (one, *(base or ['no dump that is here'])), quiet)
    if newest != base:
        say('warning: %s is newer, and %s does not build upon it' % (*newest, one))


def well_dated(dumps):
    """Return the dumps whose date label can be true; report the others."""
    for one in sorted(filter(Dump.misdated, dumps), key=recency):
        say('%s is dated later than the day it was stored, and not to be trusted; '
            '`delete -k` it if it is not yours' % one)
    return [one for one in dumps if not one.misdated()]


def without_strays(bucket, dump, alone=False):
    """Remove the strays of a Dump, as far as we may look, and return it; alone: look also at a
    single object, which may be all that was copied."""
    if dump.layout == '.volume_' and 0 in dump.pieces and (max(dump.pieces) or dump.ends or alone):
        with tolerating(403, 404):      # 404: somebody deletes it just now
            dump.look_closer(bucket.head_object(dump.pieces[0].key), bucket)
    return dump


def find_by_key(bucket, key, may_list=True):
    """Return the Dump under exactly this key, whatever its layout, or what is left of it;
    may_list: False if credentials that may not list suffice for a dump without volumes."""
    head, first = None, None if bucket.at is None else next(bucket.list_objects(key), None)
    with tolerating(404):
        if bucket.at is None or first and first.key == key:     # else there only are longer ones
            head = bucket.head_object(first.key if first else key)
    if head:
        first = first or s3.ListEntry(key, head.size, head.modified, head.storage_class, head.etag)
        dump = collect(bucket, key, '.volume_', first, head.alone or not may_list)
        dump.look_closer(head, bucket)
        return dump
    for layout in ('/chunk_', ':', '.volume_'):
        dump = collect(bucket, key, layout)
        if dump.entries:
            return dump
    raise s3.Error('there is no object %s' % s3.quoted(key))


def collect(bucket, key, layout, first=None, tolerant=False):
    """Return the Dump of the objects of *key* with this layout, and of its *first*; tolerant: no
    others if the credentials may not list."""
    dump = Dump(key, layout, parse_key(key), first)
    for each in ('.volume_', '.end_') if layout == '.volume_' else (layout,):
        with tolerating(403 if tolerant else None):
            for entry in bucket.list_objects(key + each):
                piece = parse_piece(entry.key)
                if piece and piece[:2] == (key, each):
                    dump.add(each, piece[2], entry)
    return dump


# --------------------------------------------------------------------------- Signals

class Stopped(BaseException):
    """Raised when a signal asks the program to end.  A second signal kills it at once."""
    outcome = ''                    # ": nothing is stored", where that is certain


class Signals:
    """The signals that end us.  Their handler only notes them, and raises where s3.NoSignals lets
    it: anywhere else an exception from nowhere could leave things half done."""
    ENDING = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT
    pending = None                  # the number of one that came and hasn't ended us yet
    came = False
    before_end = staticmethod(lambda: None)     # called before the program ends
    second_kills = True             # whether another one ends us at once (QUIT without a core)
    _waiting = False                # whether the handler may raise

    def catch(self):
        """Let signals end us, except ignored ones, as under nohup or in a job with &."""
        def stop(number, frame):
            if not self.came:
                self.pending, self.came = number, True
                if self._waiting:
                    raise Stopped(number)
            elif self.second_kills:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGKILL if number == signal.SIGQUIT else number)

        for number in self.ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, stop)

    def poll(self):
        """Raise Stopped if the handler didn't, or did in a finalizer, where it is lost."""
        number = self.pending
        if number:                  # reset only now, lest one that comes in between be lost
            self.pending, self._waiting = None, False
            self.before_end()
            raise Stopped(number)

    def __enter__(self):
        self._waiting = True
        self.poll()

    def __exit__(self, *_):
        self._waiting = False


SIGNALS = Signals()


def ignore_signals(numbers=Signals.ENDING):
    """Ignore signals: the work is done, and they can't undo it."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def catch_rate_signals(limit):
    """Let SIGUSR1 halve and SIGUSR2 double the rate of the RateLimit *limit*."""
    def change(number, frame):
        rate = limit.rate               # another signal may change it meanwhile
        if number == signal.SIGUSR1:
            limit.rate = min(rate or 1 << 20, max(1 << 10, (rate or 512 << 10) // 2))
        else:                           # above 10 MiB/s there is no limit any more
            limit.rate = rate * 2 if rate and rate * 2 <= 10 << 20 else None

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, change)


# -------------------------------------------------------------- Both ends of the pipe

def wide_pipe(descriptor):
    """Let a pipe hold 1 MiB, where Linux can: a transfer over http takes a sixth less CPU."""
    # else it is not a pipe, not Linux, or more than the user may have
    with contextlib.suppress(ImportError, OSError):
        import fcntl
        if fcntl.fcntl(descriptor, 1032) < 1 << 20:     # F_GETPIPE_SZ, named from 3.10 on
            fcntl.fcntl(descriptor, 1031, 1 << 20)      # F_SETPIPE_SZ


def start(program, reading=None):
    """Return the subprocess.Popen of a program whose output comes through a pipe, or which reads
    from a descriptor, in a session of its own, so that all of it can be ended."""
    import subprocess               # here, for most dumps come through a pipe
    try:
        return subprocess.Popen(program, bufsize=0, stdin=reading, start_new_session=bool(reading),
                                stdout=None if reading else subprocess.PIPE)
    except (OSError, ValueError) as error:
        raise s3.Error('cannot start %s: %s' % (s3.printable(program[0]), s3.brief(error)))


def ended(process, accepted, outcome):
    """Whether a program ended; raises Error with *outcome* unless its status is 0 or accepted."""
    name = s3.printable(process.args[0])
    try:
        status = s3.exit_status(process)
    except ChildProcessError:
        raise s3.Error('how %s ended is not known%s' % (name, outcome))
    if status is None:
        return False
    SIGNALS.poll()                  # a signal may be why it failed
    if status and status not in accepted:
        raise s3.Error('%s %s %d%s' % (name, 'ended with exit status' if status > 0 else
                                       'was ended by signal', abs(status), outcome))
    return True


class Source:
    """Where a dump comes from: standard input, or the output of a program.  readinto() raises
    rather than ends unless the stream is known to be whole."""
    unbuffered = True               # so its descriptor tells whether there is more
    size = 0
    total = 0                       # bytes, where it can be known
    _process = _due = None          # _due: when the process must have ended

    def __init__(self, program, accepted, min_size):
        self._accepted, self._min_size = accepted, min_size
        if program:
            self._process = start(program)
            self._raw = self._process.stdout
        else:
            self._raw = open(0, 'rb', buffering=0, closefd=False)
            if self._raw.seekable():        # a file; of a device the size is 0
                self.total = max(0, os.fstat(0).st_size - self._raw.tell())
        self.fileno = self._raw.fileno      # of what can be read when the stream goes on
        wide_pipe(self.fileno())

    def readinto(self, view):
        try:
            count = self._raw.readinto(view)
        except OSError as error:
            raise s3.Error('cannot read the stream: %s' % error.strerror)
        if count == 0 and not self._ended():
            return None             # not yet
        self.size += count or 0
        return count

    def _ended(self):
        """Whether this is the end of a whole stream; False while the program runs on."""
        if self._process and not ended(self._process, self._accepted, ': nothing is stored'):
            return False
        if self.size < self._min_size:
            raise s3.Error('the stream has %s, less than --min-size %d: nothing is stored'
                           % (counted(self.size, 'byte'), self._min_size))
        return True

    def terminate(self):
        """Ask the program to end, if it still runs, within 4 s."""
        if self._process and self._due is None and self._process.poll() is None:
            self._due = time.monotonic() + 4
            with contextlib.suppress(OSError):      # sudo runs as root
                self._process.terminate()

    def close(self):
        """End the program, if it still runs."""
        self._raw.close()
        self.terminate()
        if self._due and not s3.wait_until(lambda: self._process.poll() is not None,
                                           max(0.1, self._due - time.monotonic())):
            with contextlib.suppress(Exception):    # and a dying disk doesn't let go of dd
                self._process.kill()
                self._process.wait(0.2)


class Sink:
    """Where a dump goes to: standard output, or a program, which sees the end of it in finish()."""

    def __init__(self, program, accepted, found):
        self._accepted, self._outcome = accepted, ': %s is not restored' % found
        self._process, self._to = None, 1
        if program:
            self._from, self._to = os.pipe()    # we keep both, to see what it leaves unread
            self._process = start(program, self._from)
            os.set_blocking(self._to, False)
            SIGNALS.second_kills = False        # which would show the program an end
        wide_pipe(self._to)

    def write(self, view):
        write_out(view, self._to, self._ended)

    def _ended(self, closed=False):
        """Whether the program has ended; raises Error if it failed, or has not read all."""
        if not self._process or not ended(self._process, self._accepted, self._outcome):
            return False
        if not closed or os.read(self._from, 1):
            raise s3.Error('%s ended before it had read all%s' % (
                s3.printable(self._process.args[0]), self._outcome))
        return True

    def finish(self):
        """Show the end; returns once the program has read it and succeeded."""
        if not self._process:
            return os.close(os.dup(1))  # some file systems tell only now that they are full
        os.close(self._to)
        while not self._ended(closed=True):
            with SIGNALS:
                time.sleep(0.05)
        os.close(self._from)
        self._process = None

    def close(self):
        """End the program and all its group, unless it did well, before they see an end."""
        if not self._process:
            return
        due = time.monotonic() + 2
        with contextlib.suppress(Exception):    # nobody is left, or it can't be killed
            os.killpg(self._process.pid, signal.SIGTERM)
            while time.monotonic() < due:
                self._process.poll()
                os.killpg(self._process.pid, 0)
                time.sleep(0.02)
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(1)
        if self._process.poll() is None:
            say('warning: %s cannot be killed, and may take what it got for a whole dump'
                % s3.printable(self._process.args[0]))


def write_out(view, descriptor=1, look=lambda: None):
    """Write all of *view*, even if the descriptor doesn't block; call look() while nobody reads."""
    while len(view):
        with SIGNALS, contextlib.suppress(BlockingIOError):
            while not s3.ready([descriptor], select.POLLOUT, 0.25):
                look()
            view = view[os.write(descriptor, view):]


def read_in():
    """Read some bytes of standard input, even if it doesn't block; none at its end."""
    with SIGNALS:
        while not s3.ready([0], select.POLLIN, 0.25):   # a signal just before would not end it
            pass
        return os.read(0, 1 << 16)


class Status:
    """The line on standard error that tells, at a terminal, how a command goes.

    A thread rewrites it every second from what others count: of a transfer all that is known, of
    any other command only what it has been waiting for.  Elsewhere, and with -q, there is none.
    The cursor waits at its beginning: whatever a resize makes of it, all from there is cleared.
    """
    CLEAR = '\r\x1b[J'
    live = False                    # it may be on the screen: whoever prints clears it first
    _recent = None                  # of a transfer, for ten seconds: (when, bytes moved by then)

    def __init__(self, bucket, quiet):
        self._bucket, self._quiet = bucket, quiet
        self.resume()

    def begin(self, total):
        """Show a transfer from now on.  total: bytes, or 0 if unknown."""
        if not self._thread:
            self.resume()           # after the one before it
        self._start, self._total = time.monotonic(), total
        self._before = self._bucket.limit.moved - self._bucket.tally.wasted
        self._recent = collections.deque([(self._start, 0)], 10)
        Status.live = self._thread is not None

    def resume(self):
        """Show what is waited for."""
        self._shown, self._thread = '', None
        self._running = threading.Lock()    # held until close()
        self._running.acquire()
        if not self._quiet and os.isatty(2) and os.environ.get('TERM') != 'dumb':
            thread = s3.Thread(self._run)
            with contextlib.suppress(RuntimeError):     # no more threads; s3 complains of that
                thread.start()
                self._thread = thread

    def _run(self):
        while not self._running.acquire(timeout=1):
            line = self._line(time.monotonic())[:(os.get_terminal_size(2).columns or 80) - 1]
            with contextlib.suppress(OSError):      # where the terminal doesn't control us
                line *= os.tcgetpgrp(2) == os.getpgrp()     # in the background show nothing
            if Status.live and (line or self._shown):
                self._shown = line
                s3.write_error('%s%s\r' % (self.CLEAR, line))
            elif self._bucket.tally.waits:
                Status.live = True          # and next time, when others know, the line is shown

    def _line(self, now):
        """Return what is known of a transfer, its rate over ten seconds, and what is waited for."""
        words, tally, waits = [], self._bucket.tally, self._waits(now)
        if self._recent:
            moved = max(0, self._bucket.limit.moved - tally.wasted - self._before)
            then, moved_then = self._recent[0]
            rate = max(0, moved - moved_then) / (now - then)
            self._recent.append((now, moved))
            words = [human(moved), human(rate) + '/s', elapsed(now - self._start)]
            if self._total:
                words.append('%d%%' % min(100, 100 * moved // self._total))
                if rate > 0 and not waits:
                    words.append(elapsed(max(0, self._total - moved) / rate) + ' left')
            if tally.retries and not waits:
                words.append(counted(tally.retries, 'retry', 'retries'))
        return '  '.join(words + waits).encode('ascii', 'replace').decode()

    def _waits(self, now):
        """Return text, in a list, if something is waited for longer than a moment."""
        waits = list(self._bucket.tally.waits.copy().values())
        pauses = [(since + seconds, why) for why, since, seconds in waits if seconds]
        if pauses:
            again, why = min(pauses)
            return ['%s, next try in %d s' % (why, max(1, again - now + 0.9))]
        asked = min((since for what, since, _ in waits if not what), default=now)
        silent = now - max(asked, self._bucket.limit.moved_at)
        if silent > 1.5:
            return ['no answer for %.0f s' % silent]
        return ['waiting for ' + what for what, since, _ in waits if what and now - since > 1.5]

    def close(self):
        """Clear the line, and show no more."""
        if self._thread:
            self._running.release()
            s3.wait_until(lambda: self._thread.ended, 1)
            if self._shown:
                tell(self.CLEAR)
            self._thread, Status.live = None, False

    def summary(self, what, size, *facts):
        """Print a line for a log; returns the seconds that the transfer took."""
        self.close()
        seconds = max(0.001, time.monotonic() - self._start)
        say('%s: %s (%s) in %s, %s/s, %s, %s' % (what, human(size), counted(size, 'byte'),
            elapsed(seconds) if seconds >= 60 else '%.2f s' % seconds,
            human(size / seconds), ', '.join(facts),
            counted(self._bucket.tally.retries, 'retry', 'retries')), self._quiet)
        return seconds


# -------------------------------------------------------------------------- Commands

def dump(bucket, args):
    """Nothing is stored unless the stream comes to its end, and PROGRAM succeeds."""
    if not args.program and os.isatty(0):
        raise UsageError('dump reads a stream: pipe one into it, or give a program after --')
    Stopped.outcome = ': nothing is stored'
    if len((args.key or new_key(args, 0)).encode()) > MAX_KEY:
        raise UsageError('the key has more than %d bytes' % MAX_KEY)
    if args.key is None:
        bucket.learn_clock()
    key, unique = args.key or new_key(args, bucket.now()), not (args.key or args.fixed_key)
    if not unique:
        refuse_existing(bucket, args, key)
    if args.retain:
        bucket.retain = (args.retain_mode or 'governance').upper(), args.retain
    source = Source(args.program, args.accept_status, args.min_size)
    SIGNALS.before_end = source.terminate       # tidying up gives it a while
    args.status.begin(source.total)
    with contextlib.closing(source), contextlib.closing(args.status):
        stored = bucket.upload(key, source, overwrite=args.overwrite, unique=unique)
    ignore_signals()
    SIGNALS.pending, Stopped.outcome = None, ''     # a signal came too late
    if not stored.size:
        say('warning: the stream was empty, and so is the dump %s' % s3.printable(stored.key))
    seconds = args.status.summary(
        'dump %s' % s3.printable(stored.key), stored.size, counted(stored.parts, 'part'),
        counted(stored.objects - (stored.objects > 1), 'volume'),       # no end mark
        'checked: ' + ('crc32' if bucket.checksum else 'sha256'))
    if args.json:
        try:
            print_out(to_json(key=stored.key, size=stored.size, seconds=round(seconds, 3),
                              parts=stored.parts, objects=stored.objects,
                              retries=bucket.tally.retries))
        except OSError as error:
            raise s3.Error('%s is stored, but its JSON could not be written: %s' % (
                s3.quoted(stored.key), error.strerror))


def refuse_existing(bucket, args, key):
    """Raise Error before the stream is read if its key is taken, as far as we may look."""
    if not args.overwrite and bucket.exists(key):
        raise s3.Error('%s exists and was not changed; --overwrite replaces it' % s3.quoted(key))
    if collect(bucket, key, '.volume_', tolerant=True).entries:
        raise s3.Error('%s has volumes of an earlier dump: `delete -k` it first' % s3.quoted(key))


def check_whole(found):
    """Return the Dump; raises IntegrityError if it isn't whole, as far as names and sizes tell."""
    problem = found.problem()
    if problem:
        raise s3.IntegrityError('%s is not whole: %s' % (s3.quoted(found.key), problem))
    if found.bare and (len(found.entries) > 1 or (found.labels and found.labels.stamp)):
        say('warning: %s has no metadata, as if copied without: it is taken for whole by the '
            'names and sizes of its objects' % found)
    return found


def check_readable(bucket, found):
    """Raise IntegrityError or ArchivedError if not all of the Dump can be read now."""
    for key in found.keys:
        bucket.head_whole(key, bool(found.ends))


def read_back(bucket, args, found, write, finish=lambda: None):
    """Download the Dump to *write*(view), call finish() if good; returns how it was checked."""
    args.status.begin(found.size)
    proof = bucket.download(found.keys, write, ended=bool(found.ends))
    with bucket.tally.waiting(found, 'the reader'):
        finish()
    pieces = counted(len(found.pieces), 'volume' if found.layout == '.volume_' else 'chunk')
    args.status.summary('%s %s' % (args.name, found), found.size, pieces, 'checked: ' + proof)
    return proof


# How long Amazon takes.  Source: Amazon S3 User Guide, "Understanding archive retrieval options".
THAW_TIMES = {'expedited': '5 minutes', 'standard': '5 hours', 'bulk': '12 hours',
              'DEEP standard': '12 hours', 'DEEP bulk': '48 hours', 'DEEP expedited': '12 hours'}


def thaw(bucket, args, dumps):
    """Let archived dumps be made readable; raises ArchivedError until they are, or waits."""
    tier, keys = args.tier or 'standard', [key for one in dumps for key in one.keys]
    for pause in itertools.chain((1, 2, 4, 8, 16, 32, 64, 128), itertools.repeat(300)):
        heads = ((key, bucket.head_object(key)) for key in keys)
        archived = [(key, head) for key, head in heads if not bucket.readable(key, head)]
        if not archived:
            return
        idle = [(key, head) for key, head in archived if not head.restoring]
        if pause > 60 and idle:
            raise s3.Error('%s was asked for, but stays unreadable' % s3.quoted(idle[0][0]))
        for key, head in idle if pause == 1 else ():
            bucket.restore_object(key, args.thaw if head.storage_class != 'INTELLIGENT_TIERING'
                                  else None, tier.capitalize())
        text = '%s was asked for (%s): %d of its %s cannot be read yet; thawing takes up to %s' % (
            ' with '.join(map(str, dumps)), tier, len(archived), counted(len(keys), 'object'),
            THAW_TIMES['DEEP ' * any('DEEP' in head.archived for _, head in archived) + tier])
        if not args.wait:
            raise s3.ArchivedError('%s; repeat the command then with %s' % (
                text, '-w ' + dumps[-1].labels.date if args.chain else
                '-k %s in place of FS LEVEL' % shell_word(dumps[0].key)))
        if pause == 1:
            say(text, args.quiet)
        with SIGNALS:
            time.sleep(pause)


def restore(bucket, args):
    """Or into PROGRAM, which sees the end of it only if the dump is good.  With
    --chain FS it runs once for each dump that is needed, in order: the newest of
    level 0, and what builds upon it."""
    plan_only = args.dry_run or (args.chain and not args.program)
    if not (args.program or plan_only) and os.isatty(1):
        raise UsageError('restore writes a stream: pipe it into a program or a file')
    dumps = find_chain(bucket, args) if args.chain else [find_whole(bucket, args)]
    if args.thaw and not args.dry_run:
        thaw(bucket, args, dumps)
    if plan_only:
        return print_out('\n'.join('would restore %s, %s' % (one, human(one.size))
                                   for one in dumps))
    for one in dumps if args.program else ():
        check_readable(bucket, one)     # before any of them is restored
    for one in dumps:
        with contextlib.closing(Sink(args.program, args.accept_status, one)) as sink:
            read_back(bucket, args, one, sink.write, sink.finish)


def verify(bucket, args):
    found = find_whole(bucket, args)
    if args.thaw:
        thaw(bucket, args, [found])
    proof = read_back(bucket, args, found, lambda view: None)
    if args.json:
        print_out(to_json(key=found.key, size=found.size, verified=proof))


# --path-as-is, since a key may hold /../; curl -f ends with 22 for an answer like 403, 23 for a
# full disk, 33 for a server that can't resume.
CURL = ('with these lines in the file urls, and room for the largest object in the file part: '
        '(rm -f part; while read -r u; do until curl -fsS --retry 5 --path-as-is -C - -o part '
        '"$u"; do case $? in 22|23|33) exit 1; esac; sleep 5; done; cat part && rm part || exit 1; '
        'done < urls)')


def url(bucket, args):
    found = find_whole(bucket, args)
    check_readable(bucket, found)
    expires = bucket.credentials.get(bucket).expires
    if expires is not None and expires < bucket.now() + args.expires:
        say('warning: the URLs end with the credentials that sign them, at %s' % s3.utc(expires))
    for key in found.keys:
        print_out(bucket.presigned_url(key, args.expires))
    say(CURL, args.quiet)


def getacl(bucket, args):
    """The access control list is that of the dump's first object."""
    acl = bucket.get_object_acl(find_whole(bucket, args).keys[0])
    args.status.close()
    write_out(memoryview(acl))


def putacl(bucket, args):
    """The XML comes through standard input, as getacl prints it."""
    if os.isatty(0):
        raise UsageError('putacl reads XML as getacl writes it: pipe it in')
    found = find_whole(bucket, args)
    acl = b''.join(itertools.islice(iter(read_in, b''), 1 << 10))
    try:
        s3.Document(acl, 'AccessControlPolicy')
    except s3.BadAnswer:
        raise s3.Error('standard input is not an AccessControlPolicy, as getacl writes it')
    for key in found.keys:
        bucket.get_object_acl(key)  # a server without ACLs would store the XML as the object
        bucket.put_object_acl(key, acl)


def agreed(args, names, question, deed='delete', done='deleted'):
    """Return whether to go on with *names*.  With -n print what would be done, and return False; at
    a terminal ask, and raise Error unless the answer is yes.  deed, done: what this means."""
    if args.dry_run:
        for what in names:
            print_out('would %s %s' % (deed, what))
    elif not args.yes and os.isatty(0):
        args.status.close()
        answer = b''
        try:
            answer = read_in() if tell('\n'.join(names + [question + ' [y/N] '])) else b''
        finally:
            tell('\n' * (not answer.endswith(b'\n')))
        args.status.resume()
        if answer.strip().lower() not in (b'y', b'yes'):
            raise s3.Error('nothing was ' + done)
    return not args.dry_run


def remove(args, what, delete, parts, deed='delete', done='deleted'):
    """Delete the parts of *what*; if one can't be, say so and return False."""
    try:
        for part in parts:
            delete(part)
    except s3.Error as error:
        if isinstance(error, s3.NetworkError) or error.status >= 500:
            raise                   # the others would fail as well, each after its patience
        say('cannot %s %s: %s' % (deed, what, error))
        return False
    say('%s %s' % (done, what), args.quiet)
    return True


def unlocked(bucket, dumps, quiet=False):
    """Return those of *dumps* without an object that is seen to be locked; report the others."""
    find_locks(bucket, dumps)
    for one in dumps:
        if one.last_lock and not quiet:
            say('%s is %s' % (one, 'under a legal hold' if one.last_lock == float('inf') else
                              'locked until ' + s3.utc(one.last_lock)))
    return [one for one in dumps if not one.last_lock]


def delete(bucket, args):
    """If that day has several, none is deleted, and their keys are printed for -k."""
    if args.key is not None:
        found = find_by_key(bucket, args.key)
    else:
        dumps = find_all(bucket, args)      # first, to learn the server's clock
        args.date = args.date or local(bucket.now())[:10]
        dumps = meant(args, dumps)
        if not dumps:
            raise no_dump(args, ' (another day: -w DATE)')
        if len(dumps) > 1:
            for one in sorted(dumps, key=recency):
                print_out('-k %s' % shell_word(one.key))
            raise s3.Error('%d dumps match and none was deleted: choose one by -k KEY' % len(dumps))
        found = dumps[0]
    if not unlocked(bucket, [found]):
        raise s3.Error('nothing was deleted')
    warn_of_builders(bucket, found)
    what = '%s, %s' % (found, human(found.size))
    if agreed(args, [what], 'Delete it?') and not remove(
            args, what, bucket.delete_listed, found.entries):
        return 1
    point_out_versions(bucket, args)


def warn_of_builders(bucket, found):
    """Warn that the Dump is needed: nothing would show later that it was what others build upon."""
    builders = []
    if found.labels:
        with tolerating(403):
            builders = [chain[-1] for chain in chains(find_fs(bucket, found.labels)[0])
                        if found.key in [one.key for one in chain[:-1]]]
    if builders:
        say('warning: %s upon %s, up to %s: without it, what they restore is not what was '
            'dumped' % (counted(len(builders), 'dump builds', 'dumps build'), found, builders[-1]))


def shell_word(text):
    """Quote *text* for a shell, so that a terminal shows it as it is."""
    if text.isprintable():
        return "'%s'" % text.replace("'", "'\\''")
    return "$'%s'" % ''.join(chr(byte) if 32 <= byte < 127 and byte not in b"'\\"
                             else '\\x%02x' % byte for byte in text.encode())


def init(bucket, args):
    found = False
    with tolerating(404):
        with tolerating(403):       # some credentials may write, but not ask
            bucket.head_bucket()
        found = True
    if not found:
        bucket.create_bucket()
    key, text = '%s:s3dump-init-%s' % (args.host, s3.random_name()), b'a test that can be deleted'
    view, failures = memoryview(bytearray(len(text))), []
    bucket.put_object(key, text, unique=True, storage_class='STANDARD')
    try:
        bucket.get_object(key, view)
        if view != text:
            raise s3.IntegrityError('the data read back differ from those written')
        bucket.require_listed([key])
    except s3.Error as error:
        failures.append(error)
    try:
        bucket.delete_object(key)
    except s3.Error as error:
        say('left behind: %s' % key)
        failures.append(error)
    if failures:
        raise failures[0]
    say('the bucket %s %s: it can be written, read and deleted from' % (
        bucket.endpoint.bucket, 'is there' if found else 'was created'), args.quiet)


# ----------------------------------------------------------------- Listing and rotation

# US dollars per GiB and month in us-east-1, noted in November 2026; any other class costs what
# STANDARD does.
PRICES = {'STANDARD': 0.023, 'INTELLIGENT_TIERING': 0.023, 'STANDARD_IA': 0.0125,
          'ONEZONE_IA': 0.01, 'GLACIER_IR': 0.004, 'GLACIER': 0.0036, 'DEEP_ARCHIVE': 0.00099,
          'REDUCED_REDUNDANCY': 0.024, 'EXPRESS_ONEZONE': 0.11}
# Days that a class bills at least.  Source: Amazon S3 User Guide, "Understanding and managing
# Amazon S3 storage classes", November 2026.
MINIMUM_DAYS = {'STANDARD_IA': 30, 'ONEZONE_IA': 30, 'GLACIER_IR': 90, 'GLACIER': 90,
                'DEEP_ARCHIVE': 180}
UNFINISHED_AGE = 30 * 86400         # seconds after which unfinished uploads and orphans go


def totals(dumps):
    """Return the bytes of dumps, and the dollars that they cost per month."""
    entries = [entry for one in dumps for entry in one.pieces.values()]
    return sum([entry.size for entry in entries]), sum([entry.size * PRICES.get(
        entry.storage_class, PRICES['STANDARD']) for entry in entries]) / (1 << 30)


def find_sections(bucket, args):
    """Return the prefix that the command line means, and group() of what is below, by sections."""
    prefix = '' if args.all else args.host + ':'
    if args.fs is not None and not args.all:
        return prefix + args.fs + ':', [find_fs(bucket, args)]
    entries = bucket.list_objects(prefix)   # clean keeps all in memory, and so needs no order
    return prefix, [group(entries)] if args.name == 'clean' else sections(entries)


def list_dumps(bucket, args):
    prefix, found = find_sections(bucket, args)
    found = shown(bucket, args, found)
    if args.json or args.long:
        for dumps, _, others in found:
            if dumps or others:
                print_out('\n'.join(row(args, one) for one in dumps + others))
    elif not print_dumps(bucket, args, prefix, found):
        point_out_others(bucket, args)


def shown(bucket, args, found):
    """Return what is printed of each group() of *found*; others are Dumps without labels."""
    found = (([without_strays(bucket, one) for one in dumps if args.fs in (None, one.labels.fs)
               and (not args.deleted or one.deleted)], orphans if bucket.at is None else [],
              [Dump(entry.key, '', None, entry) for entry in others if args.fs is None
               and (not args.deleted or entry.above)]) for dumps, orphans, others in found)
    if args.locks:                  # all at once, for that is a request for each object
        found = list(found)
        find_locks(bucket, [one for dumps, _, others in found for one in dumps + others])
    return found


def print_dumps(bucket, args, prefix, found):
    """Print sections for people, and what they sum up to.  Return the number of dumps."""
    total, all_orphans, shown = collections.Counter(), [], None
    for dumps, orphans, others in itertools.chain(found, [([], [], [])]):
        all_orphans += meant(args, orphans)
        size, dollars = totals(dumps)
        total.update(dumps=len(dumps), size=size, dollars=dollars, others=len(others),
                     others_size=totals(others)[0])
        host = dumps[0].labels.host if dumps else shown if args.all else args.host
        if host != shown:
            print_out('%sDumps for %s:' % ('\n' * bool(shown), 'this host (%s)' % s3.printable(
                host) if host == args.here else s3.printable(host)))
            shown = host
        if dumps:
            print_out('\n'.join(section_lines(args, dumps)))
    lines = ['', 'Other objects, not dumps: %d, %s' % (
        total['others'], human(total['others_size'])), ''] if args.all and total['others'] else ['']
    lines.append('Total data %s: %s ($%.2f/month)' % (
        'hidden' if args.deleted else 'stored', human(total['size']), total['dollars']))
    print_out('\n'.join(lines + unfinished_lines(
        bucket, unfinished(bucket, prefix, args.fs and args), all_orphans)))
    return total['dumps']


def point_out_others(bucket, args):
    """Say of which file systems of the host there are dumps, or else of which hosts, if there are
    none of those that were asked for and the credentials may list them."""
    def labels(prefix, index):
        with contextlib.suppress(s3.Error):
            return sorted({one.labels[index] for dumps, _, _ in sections(
                bucket.list_objects(prefix)) for one in dumps})
        return ()

    if args.all or args.quiet:
        return
    missing, hint, found = '%s of host %s' % (args.fs, args.host), '', labels(args.host + ':', 1)
    if args.fs in found or found and args.fs is None:
        return
    if not found:
        missing, hint, found = 'host ' + args.host, ' (-h NAME, or -a for all)', labels('', 0)
    there = '; there are dumps of %s%s%s' % (', '.join(map(s3.printable, found[:20])), (
        ' and %d more' % (len(found) - 20)) * (len(found) > 20), hint)
    say('there is no dump of ' + s3.printable(missing) + there * bool(found))


def unfinished_lines(bucket, uploads, orphans):
    begun = [one.youngest for one in orphans] + [upload.initiated for upload in uploads]
    if not begun:
        return []
    size = 0                        # unknown, or to ask for so many takes too long
    with contextlib.suppress(s3.ResponseError, s3.BadAnswer):
        if len(uploads) <= 100:
            size = sum(one.size for one in orphans) + sum(
                size for upload in uploads for size in bucket.list_parts(upload))
    return ['Unfinished uploads: %d%s, the oldest of %s (S3 bills them; clean aborts them after '
            '%s)' % (len(begun), ', ' + human(size) if size else '', local(min(begun))[:10],
                     s3.duration(UNFINISHED_AGE))]


def section_lines(args, dumps):
    days = collections.Counter(one.labels[2:4] for one in dumps)
    dumps.sort(key=lambda one: (int(one.labels.level), one.labels.level) + (    # to parse a stamp
        recency(one) if days[one.labels[2:4]] > 1 else one.labels[3:4]))        # takes its time
    lines = [s3.printable(dumps[0].labels.fs)]
    for one in dumps:
        when = one.labels.date
        if one.labels.stamp and days[one.labels[2:4]] > 1:
            when += local(stamp_time(one.labels.stamp, one.stored))[10:]
        line = 'Level %s %s:%9s%s' % (one.labels.level, when, human(one.size), one.state())
        for name, text in remarks(args, one, local).items():
            line += '  %s %s' % (name.replace('_', ' '), text) if text else '  not locked'
        problem = one.problem()
        lines.append(line + ('  (%s)' % problem if problem else ''))
    return lines


def row(args, one):
    """Return a line: JSON, or fields of which only the last, the key, may hold blanks."""
    more = remarks(args, one, s3.utc)
    if args.long:
        return '%15d %s %3d %-12s %-6s %s%s' % (
            one.size, s3.utc(one.stored), len(one.entries), s3.printable(one.storage_class),
            'other' if not one.labels else 'broken' if one.problem() else 'whole',
            ''.join('%-21s' % (text or '-') for text in more.values()), one)
    return to_json(**dict(zip(('host', 'fs', 'level', 'date'), one.labels or [None] * 4)),
                   key=one.key, stored=s3.utc(one.stored), size=one.size,
                   storage_class=one.storage_class, objects=len(one.entries), **more)


def unfinished(bucket, prefix, args=None):
    """Return the unfinished uploads, or only those of dumps that *args* mean; none if nobody shows
    them, as those of the past."""
    with tolerating(400, 403, 404, 405, 501), contextlib.suppress(s3.BadAnswer):
        return [each for each in bucket.list_multipart_uploads(prefix) if not args or meant(
            args, itertools.chain(*group([each])[:2]))] if bucket.at is None else []
    return []


# Rotation.  Each rule maps a date label to a period, and keeps the newest dump of each period.

RULES = (('daily', lambda date: date), ('weekly', lambda date: real_date(date).isocalendar()[:2]),
         ('monthly', lambda date: date[:7]), ('yearly', lambda date: date[:4]))


def plan(dumps, last, counts):
    """Return [(Dump, the rules that keep it)] for *dumps* of one level, the newest first.

    last: how many of the newest are kept; counts: {rule: how many it keeps}.  As with restic's
    `forget`, periods without a dump don't count, and a rule that isn't used up keeps the oldest.
    """
    dumps = sorted(dumps, key=recency, reverse=True)
    planned = [(one, ['last'] if number < last else []) for number, one in enumerate(dumps)]
    for rule, period in RULES:
        left, current = counts.get(rule, 0), None
        for one, reasons in planned:
            if left and (period(one.labels.date) != current or one is dumps[-1]):
                left, current = left - 1, period(one.labels.date)
                reasons.append(rule)
    return planned


def clean(bucket, args):
    """Keeps the newest N of each file system and level (or of FS and LEVEL alone),
    what --keep-... says, or both, and what a dump that is kept builds upon."""
    prefix, found = find_sections(bucket, args)
    dumps = [one for each, _, _ in found for one in each if args.fs in (None, one.labels.fs)]
    orphans = meant(args, [one for _, each, _ in found for one in each])
    if not dumps:
        point_out_others(bucket, args)
    doomed, failed = choose(bucket, args, whole_ones(bucket, dumps))
    point_out_minimums(bucket, args, doomed)
    going = [('%s, %s' % (one, human(one.size)), bucket.delete_listed, one.entries)
             for one in doomed]
    going += unfinished_things(bucket, args, prefix, orphans)
    names, count = [what for what, _, _ in going], counted(len(doomed), 'dump')
    size, dollars = totals(doomed)
    if args.dry_run:
        agreed(args, names[len(doomed):], '')
        print_out('%s would go, which saves %s ($%.2f/month)' % (count, human(size), dollars))
    elif going and agreed(args, names, 'Delete %s?' % (
            '%s, %s' % (count, human(size)) if doomed else 'these')):
        stuck = {}                  # what could not be deleted needs its dumps of lower levels
        for one, each in itertools.zip_longest(doomed, going):
            place, level = (one.labels[:2], int(one.labels.level)) if one else (None, 0)
            if level < stuck.get(place, level):
                say('%s stays with what builds upon it' % one)
            elif not remove(args, *each):
                stuck.setdefault(place, level)
        failed |= bool(stuck)
    elif not (failed or args.quiet):
        say('nothing to delete')
    point_out_versions(bucket, args)
    if failed:
        raise s3.Error('not everything was done: see above')


def unfinished_things(bucket, args, prefix, orphans):
    """Yield what remove() needs for each old unfinished upload, and what a crash left."""
    before = bucket.now() - UNFINISHED_AGE
    for one in unlocked(bucket, [one for one in orphans if one.youngest < before], args.quiet):
        yield 'the orphans of %s' % one, bucket.delete_listed, one.entries
    for upload in unfinished(bucket, prefix, args):
        if upload.initiated <= before:
            yield ('an unfinished upload of %s' % s3.printable(upload.key),
                   bucket.abort_multipart_upload, [upload])


def whole_ones(bucket, dumps):
    """Return {(host, fs, level): [Dump]} of the whole dumps; report the others."""
    groups = collections.defaultdict(list)
    for one in well_dated(dumps):
        problem = without_strays(bucket, one).problem()
        if problem:
            say('%s: %s: it is neither counted nor deleted' % (one, problem))
        else:
            groups[one.labels[:3]].append(one)
    return groups


def choose(bucket, args, groups):
    """Return the dumps that go, those of the highest levels first, and whether some stay against
    the rules because their sizes look wrong."""
    bases = {chain[-1]: chain[-2:-1] for chain in chains(
        itertools.chain.from_iterable(groups.values()))}
    doomed, suspicious, builders = [], False, {}
    for labels, members in sorted(groups.items(), key=lambda item: (
            item[0][:2], -int(item[0][2]), item[0])):
        going, wrong = choose_of_level(bucket, args, labels, members, builders)
        doomed += going
        suspicious |= wrong
        for one in sorted(set(members).difference(going), key=recency):
            builders.update((base, one) for base in bases[one])
            if int(labels[2]) > 0 and not bases[one]:
                say('%s is kept, but there is no older dump of a lower level' % one, args.quiet)
    return doomed, suspicious


def choose_of_level(bucket, args, labels, members, builders):
    """Return the dumps of one level that go, and whether they look too large to; with -n print the
    plan.  builders: {dump: the newest of the dumps that stay and build upon it}."""
    if args.level not in (None, labels[2]):
        return [], False
    planned = plan(members, args.count or 0, args.keep)
    kept = [one for one, reasons in planned if reasons]     # a thief could make bases
    going = [one for one, reasons in planned if not reasons and (args.force or one not in builders)]
    ratio = 0 if args.force else min_ratio(args, labels[2])
    if going and median(kept) < ratio * weighted_median(going):
        say('%s %s level %s is left alone: what would be kept is less than %g times as large '
            'as what would go; if that is right, say --min-ratio 0' % (
                s3.printable(labels[0]), s3.printable(labels[1]), labels[2], ratio))
        return [], True
    free = set(unlocked(bucket, going, args.quiet))
    for one, reasons in planned:
        if not reasons and one in builders:
            say('%s %s: %s builds upon it' % (
                one, 'goes all the same' if args.force else 'is kept', builders[one]), args.quiet)
            reasons += ['base'] * (not args.force)
        if not reasons and one not in free:
            reasons.append('locked')
        if args.dry_run:
            print_out(('%-4s %s  %8s  %s' % ('keep' if reasons else 'go', one, human(one.size),
                                             ', '.join(reasons))).rstrip())
    return [one for one, reasons in planned if not reasons], False


def min_ratio(args, level):
    """Return the least ratio of a dump's size to those of others; differences have any size."""
    return args.min_ratio if args.min_ratio is not None else 0.5 if int(level) <= 0 else 0


def point_out_minimums(bucket, args, doomed):
    """Say of how many dumps that go Amazon bills a while more, and until when."""
    ends = [one.stored + 86400 * MINIMUM_DAYS.get(one.storage_class, 0) for one in doomed]
    late = [end for end in ends if end > bucket.now()]
    if late:
        say('Amazon bills %s of these until %s all the same, for their storage class' % (
            counted(len(late), 'dump'), s3.utc(max(late))[:10]), args.quiet)


def median(dumps):
    ordered = sorted(one.size for one in dumps)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def weighted_median(dumps):
    """Return the size such that dumps up to it hold half of all bytes.  A thief could pull the
    plain median down by a thousand tiny dumps, and so hide how large the others are."""
    ordered = sorted(one.size for one in dumps)
    total = list(itertools.accumulate(ordered))
    return next(size for size, so_far in zip(ordered, total) if 2 * so_far >= total[-1])


# ------------------------------------------------------------------------ Monitoring

SHORTEST_LIMIT = 26 * 3600          # seconds: what runs every night may begin late, or take long
Verdict = collections.namedtuple('Verdict', 'labels newest earlier limit due severity reason')
Verdict.__new__.__defaults__ = None, (), None, None, 2, 'there is no dump'
Verdict.__doc__ = """On a group, the dumps with the same labels: host, fs and level.

    newest: a Dump, or None; earlier: up to ten before it; limit: how old it may be, in seconds, or
    None; due: when it will be too old, or None; severity: as of Nagios, 0 to 3, or None if the
    group is retired; reason: what is wrong, or ''."""


def check(bucket, args):
    """One is good if it is whole, not older than --max-age, and not much smaller than
    those before it.  Without LEVEL, or with -a, each file system and level of this
    host, or of all, goes by its own rhythm."""
    alone = not (args.all or args.expect or args.level is None)
    of_all = Verdict((None if args.all else args.host, args.fs, args.level))
    if args.level is not None and not args.all:
        args.expect = {of_all.labels: SHORTEST_LIMIT if args.max_age is None else args.max_age,
                       **args.expect}
    begun = ()
    try:
        verdicts = find_verdicts(bucket, args, alone) or [of_all]
        if any(each.severity for each in verdicts):
            begun = unfinished(bucket, ':'.join([*of_all.labels, '']) if alone else '')
    except s3.Error as error:
        if args.metrics or args.nagios:
            raise
        verdicts = [of_all._replace(
            severity=3, reason='the state of the dumps is unknown: %s' % error)]
    return print_verdicts(bucket, args, verdicts, begun, alone or verdicts[0].labels[2] is None)


def find_verdicts(bucket, args, alone):
    """Return the Verdicts on all groups that the command line means; alone: on one."""
    hosts = {args.host, *(labels[0] for labels in args.expect if not args.all)}
    found = [find_all(bucket, args)] if alone else (
        dumps for host in sorted(hosts) for dumps, _, _ in find_sections(
            bucket, argparse.Namespace(**dict(vars(args), host=host)))[1])
    verdicts = [each for dumps in found for each in assess(args, dumps, seen_at(bucket))]
    verdicts += map(Verdict, set(args.expect).difference(each.labels for each in verdicts))
    verdicts = [each for each in verdicts if args.fs in (None, each.labels[1])
                and args.level in (None, each.labels[2])]
    verdicts.sort(key=lambda each: (each.labels[:2], int(each.labels[2]), each.labels))
    look_at(bucket, args, [each.newest for each in verdicts if each.severity == 0], alone)
    return [fault(bucket, args, each) if each.severity == 0 else each for each in verdicts]


def assess(args, dumps, now):
    """Yield a Verdict on each group of *dumps*, all of a file system: retired, or no fault yet."""
    dated, groups = well_dated(dumps), collections.defaultdict(list)
    for one in dumps:
        groups[one.labels[:3]].append(one)
    for labels, members in groups.items():
        # with a wrong server clock none is well dated: take all
        members = sorted(set(members).intersection(dated) or members, reverse=True,
                         key=lambda one: (one.stored, recency(one)))
        newest, limit = members[0], args.expect.get(labels)
        if limit is None:
            limit = args.max_age
        if limit is None and len(members) > 2:
            limit = usual_limit(members)
        # a full dump replaces a difference, for a while
        due = limit and limit + max([newest.stored] + [
            one.stored for one in dated if int(one.labels.level) < int(newest.labels.level)])
        retired = labels not in args.expect and now - newest.stored > max(
            args.retired, 2 * (limit or 0))
        yield Verdict(labels, newest, members[1:11], limit, due, None if retired else 0,
                      'retired' if retired else '')


def usual_limit(dumps):
    """Return how old, in seconds, the first and newest of *dumps* may be by their own rhythm.

    That is twice the median of the newest three intervals, for rotation thins out what is older,
    or the sum of two, where short and long ones take turns.  A few that were dumped within a day
    have no rhythm: None.  If most days have one, only dumps at the usual hour count: the others
    were made by hand.  A weekend may take three days, once six dates are known; what is seldom
    dumped may be late by a day.
    """
    times, dates = [one.stored for one in dumps], sorted({one.labels.date for one in dumps})[-10:]
    weekdays = {real_date(date).weekday() for date in dates}
    rests = len(dates) > 5 and any(map(weekdays.isdisjoint, ({4, 5}, {5, 6}, {6, 0})))
    a_day = sorted(collections.Counter(each // 86400 for each in times[:10]).values())
    if a_day[(len(a_day) - 1) // 2] == 1:
        hour, count = collections.Counter(hour % 24 for hour in {
            each // 3600 + shift for each in times for shift in (-1, 0, 1)}).most_common(1)[0]
        rare = 2 * count <= len({each // 86400 for each in times})
        days = {each // 86400: each for each in reversed(times)
                if rare or (each // 3600 - hour + 1) % 24 < 3}
        times = sorted(days.values(), reverse=True)
    gaps = [later - earlier for later, earlier in zip(times[:4], times[1:])]
    if not gaps or (dumps[0].stored - dumps[-1].stored < 86400 and len(dumps) < 7):
        return None
    limit = max(SHORTEST_LIMIT, 2 * sorted(gaps[:3])[len(gaps[:3]) // 2],
                min(map(sum, zip(gaps, gaps[1:]))) if len(gaps) > 3 else 0)
    return limit + (86400 if limit >= 3.5 * 86400 else 3 * 86400 * rests)


def look_at(bucket, args, dumps, closely):
    """Ask, side by side, for what the listing doesn't tell of *dumps*: whether objects behind the
    first one belong to it, or are lost, and until when all are locked."""
    doubtful = [one for one in dumps if one.layout == '.volume_' and (
        closely or len(one.entries) > 1 or one.size >= s3.MIN_PART_SIZE)]     # is it full?
    for one, head in zip(doubtful, bucket.head_objects([one.keys[0] for one in doubtful])):
        if head:
            one.volume_size = head.number('volume-size')
            if closely or one.problem():
                without_strays(bucket, one)
            one.unreadable = closely and not bucket.readable(one.keys[0], head)
    if args.locked is not None:
        find_locks(bucket, dumps)


def fault(bucket, args, verdict):
    """Return the Verdict on a dump with its severity and its reason, both of the worst fault."""
    newest, earlier, now = verdict.newest, verdict.earlier, seen_at(bucket)
    problem, ratio = newest.problem(), min_ratio(args, verdict.labels[2])
    found = (
        (2, problem and 'is not whole: %s' % problem),
        (2, not newest.size and 'is empty'),
        (2, verdict.due is not None and now > verdict.due and (
            'is %s old, %s more than is allowed' % (
                s3.duration(now - newest.stored), s3.duration(now - verdict.due)))),
        (1, earlier and newest.size < ratio * median(earlier) and (
            'has %s, less than %g times %s, the median of the %s before it' % (
                human(newest.size), ratio, human(median(earlier)), counted(len(earlier), 'dump')))),
        # where the stamp agrees it is the server's clock that is wrong
        (1, newest.misdated() and (newest.labels.stamp or '')[:8] != newest.labels.date.replace(
            '-', '') and 'is dated later than the day when it was stored'),
        (1, args.locked and newest.lock < now + args.locked and (
            'is locked until %s only' % s3.utc(newest.lock) if newest.lock else
            'is not locked, or these credentials may not see its lock')))
    return next((verdict._replace(severity=severity, reason='the newest dump ' + reason)
                 for severity, reason in found if reason), verdict)


def verdict_text(bucket, verdict, begun):
    """Return what a line says of a group; begun: unfinished uploads."""
    (host, fs, level), newest, now = verdict.labels, verdict.newest, seen_at(bucket)
    text = '%s%s%s: %s' % (
        s3.printable(fs) + ' ' if fs else '', 'level %s of ' % level if level else 'of ' * bool(fs),
        s3.printable(host or 'all hosts'), verdict.reason or 'the newest dump is good')
    if newest:
        text += '; %s, %s old, %s%s' % (human(newest.size), s3.duration(
            max(0, now - newest.stored)), newest, newest.state())
    for upload in begun:
        if upload.key.startswith('%s:%s:%s:' % verdict.labels) and (
                upload.initiated > now - (verdict.limit or SHORTEST_LIMIT)):
            text += '; an upload is under way or was broken off, begun ' + s3.utc(upload.initiated)
    return text


def print_verdicts(bucket, args, verdicts, begun, alone):
    """Print Verdicts in one of the formats; returns the exit status."""
    living = [each for each in verdicts if each.severity is not None]
    bad = sorted((each for each in living if each.severity), key=lambda each: -each.severity)
    count = '%s%s of %s%s' % (
        '%d of ' % len(bad) if bad else '', counted(len(living), 'group'),
        counted(len({each.labels[0] for each in living}), 'host'),
        ', %d retired' % (len(verdicts) - len(living)) if living != verdicts else '')
    texts = [verdict_text(bucket, each, begun) for each in (living if alone else bad)]
    if args.metrics:
        print_out(metrics(args, living))
        return 0
    if args.nagios:
        status, dumps = bad[0].severity if bad else 0, [one.newest for one in living if one.newest]
        print_out('S3DUMP %s: %s | groups=%d;;;0 failed=%d;;;0 age=%ds;;;0 size=%dB;;;0' % (
            ('OK', 'WARNING', 'CRITICAL')[status], '; '.join([count] + texts[:9]).replace(
                '|', r'\x7c'), len(living), len(bad), max(
                    [seen_at(bucket) - one.stored for one in dumps], default=0),
            sum(one.size for one in dumps)))
        return status
    if args.json:
        for each in bad if args.quiet else verdicts:
            newest = each.newest
            print_out(to_json(
                **dict(zip(('host', 'fs', 'level'), each.labels)), key=newest and newest.key,
                ok=not each.severity, reason=each.reason, size=newest and newest.size,
                age_seconds=newest and max(0, int(seen_at(bucket) - newest.stored))))
    elif bad or not args.quiet:
        print_out('\n'.join('%s: %s' % ('FAILED' if bad else 'OK', text)
                            for text in texts + [count] * (not alone)))
    return 1 if bad else 0


def metrics(args, verdicts):
    """Return text for Prometheus: numbers about each group."""
    lines = collections.defaultdict(dict)
    for each in verdicts:
        newest = each.newest
        numbers = [('ok', int(not each.severity)), ('due_timestamp_seconds', each.due)]
        if newest:
            numbers += [('stored_timestamp_seconds', newest.stored), ('size_bytes', newest.size),
                        ('objects', len(newest.entries)), ('whole', int(not newest.problem())),
                        ('locked_until_timestamp_seconds',
                         None if args.locked is None else newest.lock)]
        labels = 'host="%s",fs="%s",level="%s"' % tuple(s3.printable(label or '').replace(
            '\\', r'\\').replace('"', r'\"') for label in each.labels)
        for name, number in numbers:
            if number is not None:
                lines[name][labels] = 's3dump_%s{%s} %s' % (
                    name, labels, str(number).replace('inf', '+Inf'))
    return '\n'.join('# TYPE s3dump_%s gauge\n%s' % (name, '\n'.join(samples.values()))
                     for name, samples in lines.items())


def read_expected(path):
    """Return {(host, fs, level): how old its newest dump may be, in seconds, or None} of the lines
    HOST FS LEVEL [MAX-AGE] in a file; raises ValueError."""
    import shlex
    expected = {}
    try:
        with open(path, 'rb') as file:
            for number, line in enumerate(file, 1):
                words = shlex.split(line.decode('utf-8-sig'), comments=True)
                if len(words) not in (0, 3, 4):
                    raise ValueError(counted(len(words), 'word'))
                if words:
                    host, fs, level, age = words + [None] * (len(words) == 3)
                    check_labels(Labels(host, fs, level, None, None))
                    expected[host, without_slash(fs), level] = age and parse_age(age)
    except (UsageError, ValueError) as error:
        raise ValueError('line %d of %s is not HOST FS LEVEL [MAX-AGE]: %s' % (number, path, error))
    return expected


# -------------------------------------------------------------------------- Versions
# A bucket that keeps versions only hides what is deleted or replaced.

def parse_at(text):
    """Return the last second of a day, or a moment, in local time, in seconds since the epoch; an
    age is negative.  Raises ValueError."""
    match = re.match(r'(\S{10})(?:[ T]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?)?\Z', text)
    day = real_date(match.group(1)) if match and text >= '2006' else None
    if not day:
        return -s3.parser(s3.TIME, 'a time: 2009-12-31, 2009-12-31 06:00, or an age like 3d',
                          s3.seconds_of, 1)(text)
    hours = tuple(map(int, match.groups('0')[1:])) if match.group(2) else (24, 0, -1)
    return time.mktime((day.year, day.month, day.day) + hours + (0, 0, -1))


def set_at(bucket, args):
    """Set bucket.at to the time that --at, --deleted or undelete asks for."""
    bucket.at = args.at
    if args.deleted or (args.at is None and args.name == 'undelete'):
        bucket.at = s3.UNDELETED
    if args.at is not None and args.at < 0:
        with tolerating(403):       # to learn the clock: a rescue system's may be years behind
            bucket.head_bucket()
        bucket.at += bucket.now()


def seen_at(bucket):
    """Return the time, in seconds since the epoch, as which the bucket is seen: not a later one."""
    return min(bucket.now(), float('inf') if bucket.at is None else bucket.at)


def undelete(bucket, args):
    """In a bucket that keeps versions: the dumps that were there at TIME, or
    without --at all that are hidden now."""
    going, failed = [], False
    dumps = [find_by_key(bucket, args.key)] if args.key is not None else [
        one for found, _, _ in find_sections(bucket, args)[1] for one in meant(args, found)]
    for one in filter(lambda one: one.deleted, dumps):
        reason, markers = find_markers(bucket, without_strays(bucket, one, alone=True))
        if reason:
            say('%s is left alone: %s' % (one, reason))
            failed = True
        elif markers:
            going.append(('%s, %s' % (one, human(one.size)), bucket.delete_object, markers))
    words = 'bring back', 'brought back'
    if going and agreed(args, [what for what, _, _ in going], 'Bring back these?', *words):
        failed |= not all([remove(args, *each, *words) for each in going])
    elif not (going or failed or args.quiet):
        say('there is nothing to bring back')
    if failed:
        raise s3.Error('not everything can be brought back: see above')


def find_markers(bucket, one):
    """Return why removing delete markers can't bring a dump back, or '', and the keys of those that
    hide it: of its first object last, for with that the dump is there."""
    above = [version for entry in reversed(one.own) for version in entry.above]
    if above and one.problem():
        return one.problem(), ()
    if not all(version.marker for version in above):
        return "something newer lies on it; `s3dump.py restore --at '%s' -k %s` reads it" % (
            local(bucket.at), shell_word(one.key)), ()
    return '', [version.key for version in above]


def find_locks(bucket, dumps):
    """Note until when all objects of each dump are locked, in seconds since the epoch: `lock`, 0
    where one isn't, or that can't be seen; and when the last lock ends: `last_lock`."""
    heads = iter(bucket.head_objects([entry.key for one in dumps for entry in one.own]))
    for one in dumps:
        ends = [head.locked_until if head else 0 for head in itertools.islice(heads, len(one.own))]
        one.lock, one.last_lock = (end * (end > bucket.now()) for end in (min(ends), max(ends)))


def remarks(args, one, write):
    """Return what --deleted and --locks tell of a dump, {name: text}; write: turns a time into
    text; where there is no lock the text is None."""
    lock = None if not one.lock else 'released' if one.lock == float('inf') else write(one.lock)
    return dict({'deleted': write(one.deleted)} if args.deleted else {},
                **{'locked_until': lock} if args.locks else {})


def point_out_versions(bucket, args):
    """Say that what was deleted is only hidden, if it is."""
    if bucket.hides:
        say('this bucket keeps versions: what is deleted is hidden, not freed; `list --deleted` '
            'shows what that costs', args.quiet)


# ---------------------------------------------------------------------- Command line

COMMANDS = {                        # the function, the arguments, and what --help says
    'dump': (dump, 'FS LEVEL [-- PROGRAM...]', 'store a stream, or the output of PROGRAM'),
    'restore': (restore, 'FS LEVEL [-- PROGRAM...]', 'write the newest dump to standard output'),
    'verify': (verify, 'FS LEVEL', 'read the newest dump back, and check it'),
    'list': (list_dumps, '[FS]', 'print the dumps of this host and their cost'),
    'delete': (delete, 'FS LEVEL', 'delete the dump of today, or of -w DATE'),
    'undelete': (undelete, '[FS [LEVEL]]', 'bring back what was deleted'),
    'clean': (clean, '[N] [FS [LEVEL]]', 'delete all dumps but the newest N'),
    'check': (check, '[FS [LEVEL]]', 'tell whether the newest dumps are good'),
    'init': (init, '', 'create the bucket if need be, and try it'),
    'url': (url, 'FS LEVEL', 'print URLs of the newest dump, for curl'),
    'getacl': (getacl, 'FS LEVEL', 'print who may access a dump, as XML (ACL)'),
    'putacl': (putacl, 'FS LEVEL', 'set who may access a dump, by XML (ACL)'),
}
ALIASES = {'retrieve': 'restore', 'initialize': 'init'}
ORIGINAL = 'dump restore delete list init clean getacl putacl'.split()  # each took all options
NAMING = 'dump restore verify delete undelete url getacl putacl'    # take -k KEY and -w DATE

# commands: those that take the option, none: all; metavar: the name of its value; convert: makes
# the value of the text, and raises ValueError; default: the value without the option.
Option = collections.namedtuple('Option', 'commands flags metavar help convert default')


def option(commands, flags, metavar='', help='', convert=bool, default=None):
    return Option(commands.split(), flags.split(), metavar, help, convert, default)


def parse_text(word):
    """Return a word of the command line as text: UTF-8, whatever the locale."""
    try:
        return os.fsencode(word).decode()
    except UnicodeDecodeError:
        raise UsageError('%s is not UTF-8' % s3.quoted(os.fsencode(word)))


parse_age = s3.parser(s3.TIME, 'a time: a number, then s, m, h or d', s3.seconds_of)
parse_count, parse_days = s3.count_of(10**9 - 1), s3.count_of(99999)
parse_ratio = s3.parser(r'[0-9]{1,9}(\.[0-9]{1,9})?', 'a ratio like 0.5', float)
parse_statuses = s3.parser('[0-9]{1,3}(,[0-9]{1,3})*', 'numbers with commas between them',
                           lambda text: set(map(int, text.split(','))))

OPTIONS = (
    option('', '-f --config', 'FILE', 'configuration file', str),
    option('', '-h --host', 'NAME', 'host label, else that of the configuration', parse_text),
    option('', '-L --limit-rate', 'RATE', 'bytes per second: 300k, 1.5m', s3.parse_rate),
    option('', '-j --jobs', 'N', 'parts in flight (auto: %d, and up to %d)' % (
        s3.JOBS, s3.MOST_JOBS), s3.SETTINGS['jobs']),
    option('', '--patience', 'TIME', 'how long an outage may last (15m; up to 7d)', s3.parse_week),
    option('', '-q --quiet', help='no status, only warnings and errors'),
    option('', '-v --verbose', help='a line per request and retry'),
    option('', '--completion', 'SHELL', 'print the completion for bash or zsh',
           s3.one_of('bash', 'zsh')),
    option('', '--help', help='print this; after a command, the help for it'),
    option('', '--version', help='print the version'),
    option(NAMING, '-k --key', 'KEY', 'the literal key, in place of FS and LEVEL', parse_text),
    option(NAMING, '-w --date', 'DATE', 'date label, like 2009-12-31', str),
    option('dump', '-i --infrequent-access', help='storage class STANDARD_IA'),
    option('dump', '--storage-class', 'CLASS', 'any storage class', s3.parse_word),
    option('dump', '--min-size', 'SIZE', 'fail if the stream is shorter', s3.parse_size, 0),
    option('dump', '--fixed-key', help='store as HOST:FS:LEVEL:DATE'),
    option('dump', '--overwrite', help='let -k KEY or --fixed-key replace an object'),
    option('dump', '--retain', 'DAYS', 'lock the dump for so long (Object Lock)', parse_days),
    option('dump', '--retain-mode', 'MODE', 'governance (the default) or compliance',
           s3.one_of('governance', 'compliance')),
    option('dump restore', '--accept-status', 'N,N', 'exit statuses of PROGRAM as good as 0',
           parse_statuses, ()),
    option('restore', '--chain', help='FS alone: all dumps that are needed, in order'),
    option('restore verify', '--thaw', 'DAYS', 'make an archived dump readable', parse_days),
    option('restore verify', '--tier', 'TIER', 'how fast: expedited, standard or bulk',
           s3.one_of('expedited', 'standard', 'bulk')),
    option('restore verify', '--wait', help='wait until the dump is readable'),
    option('list clean undelete check', '-a --all', help='all hosts, not just this one'),
    option('list restore verify url check undelete', '--at', 'TIME',
           'the bucket as it was, if it keeps versions', parse_at),
    option('list', '--long', help='a line per dump, for awk, sort and column'),
    option('list', '--deleted', help='what is deleted but kept, and since when'),
    option('list', '--locks', help='until when each dump is locked'),
    option('list dump verify check', '--json', help='for machines'),
    option('delete undelete clean', '-y --yes', help='do not ask'),
    option('delete undelete clean restore', '-n --dry-run', help='say what would be done'),
    option('clean', '--force', help='also what is needed, or looks too large to go'),
    *(option('clean', '--keep-' + rule, 'N', 'keep N %s dumps' % rule, parse_count)
      for rule, _ in RULES),
    option('check', '--max-age', 'TIME', 'how old the newest dump may be (LEVEL: 26h)', parse_age),
    option('check', '--locked', 'TIME', 'how long the newest dump must be locked', parse_age),
    option('check', '--retired', 'TIME', 'a group silent for longer is only counted (90d)',
           parse_age, 90 * 86400),
    option('check', '--expect', 'FILE', 'what must be there: HOST FS LEVEL [MAX-AGE]',
           read_expected, {}),
    option('check', '--metrics', help="for node_exporter's textfile collector"),
    option('check', '--nagios', help='as a plugin of Nagios or Icinga'),
    option('check clean', '--min-ratio', 'R', 'too small: below R times the usual (0.5 at level 0)',
           parse_ratio),
    option('url', '--expires', 'TIME', 'how long the URLs work: 30m, 12h, 7d (1h)', s3.parse_week,
           3600),
)


def value(what, convert, text):
    try:
        return convert(text)
    except OSError as error:
        raise UsageError('%s: %s: %s' % (what, error.strerror, s3.printable(text)))
    except ValueError as error:
        raise UsageError('%s: %s' % (what, s3.printable(str(error))))


def help_text(name):
    """Return what --help prints for a command, or for all if *name* is ''."""
    if name:
        function, usage, what = COMMANDS[name]
        lines = [('usage: s3dump.py %s [options] ' % name + usage).strip(), '', what]
        if function.__doc__:        # python -OO has none
            lines += ['', re.sub('(?m)^ +', '', function.__doc__)]
    else:
        lines = ['usage: s3dump.py [options] COMMAND [arguments]', '',
                 (__doc__ or '').rpartition('\n\n')[0], '', 'commands:']
        lines += ['  %-9s%-25s%s' % (each, *more) for each, (_, *more) in COMMANDS.items()]
    own_first = sorted(OPTIONS, key=lambda each: name and name not in each.commands)
    for commands, options in itertools.groupby(own_first, lambda each: (
            each.commands if name not in each.commands else [name])):
        if not name or commands in ([name], []):
            lines += ['', 'options of %s:' % (', '.join(commands) or 'all commands')]
            lines += ['  %-26s%s' % (', '.join(each.flags) + ' ' + each.metavar, each.help)
                      for each in options]
    return '\n'.join(lines)


def completion(shell):
    """Return a line by which a shell completes commands and options."""
    words = [*COMMANDS, *ALIASES, *(flag for each in OPTIONS for flag in each.flags)]
    return "%scomplete -o default -W '%s' s3dump.py s3dump s3dump.pyz" % (
        'autoload -U +X bashcompinit && bashcompinit; ' * (shell == 'zsh'), ' '.join(words))


def parse(argv):
    """Return the command line, checked, as a namespace; raises UsageError."""
    before = list(itertools.takewhile('--'.__ne__, argv))
    args, words = parse_options(before)
    if words[:1] == ['help']:
        words, args.help = words[1:], True
    args.name = ALIASES.get(words[0], words[0]) if words else ''
    if words and args.name not in COMMANDS:
        raise UsageError('unknown command %s%s' % (
            s3.quoted(words[0]), suggestion(words[0], COMMANDS)))
    args.text = (help_text(args.name) if args.help else 's3dump ' + s3.__version__ if args.version
                 else args.completion and completion(args.completion))
    if not args.text:
        if not words:
            raise UsageError('no command: ' + ', '.join(COMMANDS))
        args.program = argv[len(before) + 1:]
        if args.name not in ('dump', 'restore'):
            words += map(parse_text, args.program)
        elif argv == [*before, '--']:
            raise UsageError('no program after --')
        check_options(args, words[1:])
    return args


def parse_options(argv):
    """Return the options, as a namespace, and the words between them."""
    def refuse(message):
        raise UsageError(message)

    # The formatter's own way to find the width imports what takes as long as all of argparse
    parser = argparse.ArgumentParser(add_help=False, formatter_class=functools.partial(
        argparse.HelpFormatter, width=80))
    parser.error = refuse
    for each in OPTIONS:
        parser.add_argument(*each.flags, default=each.default, **(
            {'type': functools.partial(value, each.flags[-1], each.convert)} if each.metavar else
            {'action': 'store_true'}))
    flags = [flag for each in OPTIONS for flag in each.flags]
    for word in argv:               # before argparse, which guesses
        flag = word.partition('=')[0] if word.startswith('--') else word[:2]
        if re.match('-[^0-9]', word) and flag not in flags:
            raise UsageError('unknown option %s%s' % (s3.printable(flag), suggestion(
                flag, flags) or '; a PROGRAM goes after --' * (
                    'dump' in argv or 'restore' in argv)))
    args, words = parser.parse_known_args(argv)     # from Python 3.13 on with the -x of -qx
    return args, [parse_text(word) for word in words
                  if word in argv or refuse('unknown option ' + s3.printable(word))]


def suggestion(word, words):
    import difflib
    found = [each for each in words if len(word) > 3 and each.startswith(word)]
    found = found or difflib.get_close_matches(word, words, 1, 0.7)
    return ' (did you mean %s?)' % ' or '.join(found) if found else ''


def check_options(args, words):
    """Raise UsageError for what doesn't go together, and settle the rest of the namespace."""
    for each in OPTIONS:
        name = each.flags[-1][2:].replace('-', '_')
        if getattr(args, name) == []:       # what argparse makes of --key=--, until 3.12
            setattr(args, name, value(each.flags[-1], each.convert, '--'))
        if each.commands and args.name not in each.commands and getattr(args, name) != each.default:
            if each.flags[0] not in ('-k', '-w', '-i', '-a') or args.name not in ORIGINAL:
                raise UsageError('%s takes no %s' % (args.name, each.flags[-1]))
            setattr(args, name, None)
    check_words(args, words)
    for wrong, text in (
            (args.key == '', 'the key is empty'),
            (args.key and (args.fixed_key or args.date and args.name not in ORIGINAL),
             '-k KEY takes neither --date nor --fixed-key'),
            (args.overwrite and not (args.key or args.fixed_key),
             '--overwrite needs -k KEY or --fixed-key: any other key is new'),
            (args.accept_status and not args.program, '--accept-status needs a PROGRAM after --'),
            (args.retain_mode and not args.retain, '--retain-mode needs --retain'),
            (args.tier and not args.thaw, '--tier needs --thaw'),
            (args.wait and not args.thaw, '--wait needs --thaw'),
            (args.chain and args.key is not None, '--chain takes FS, not -k KEY'),
            (args.json and args.long, 'list takes --json or --long, not both'),
            (args.at and args.deleted, 'list takes --at or --deleted, not both'),
            (bool(args.json) + bool(args.metrics) + bool(args.nagios) > 1,
             'check takes one of --json, --metrics and --nagios'),
            (args.name == 'clean' and not (args.count or any(args.keep.values())),
             'clean takes the number of dumps to keep, at least 1, or --keep-...')):
        if wrong:
            raise UsageError(text)
    if args.key is None:
        check_labels(args)
    args.fs = args.fs and without_slash(args.fs)
    args.storage_class = args.storage_class or args.infrequent_access and 'STANDARD_IA'


def check_words(args, words):
    """Set fs, level and count from the words after the command."""
    usage = COMMANDS[args.name][1]
    names = re.findall(r'\b(?:FS|LEVEL|N)\b', usage)
    args.keep = {rule: getattr(args, 'keep_' + rule) for rule, _ in RULES}
    if any(args.keep.values()) and not re.match(r'[+-]?[0-9]+\Z', ''.join(words[:1])):
        names.remove('N')
    if args.chain:
        names, usage = ['FS'], '--chain FS [-- PROGRAM...]'
    elif args.key is not None:
        names, usage = [], '-k KEY, or %s, not both' % usage
    if not (0 if usage.startswith('[') else len(names)) <= len(words) <= len(names):
        raise UsageError('%s takes %s' % (args.name, usage or 'no arguments'))
    args.fs, args.level, args.count = map(dict(zip(names, words)).get, ('FS', 'LEVEL', 'N'))
    args.count = args.count and value('how many dumps to keep', parse_count, args.count)


# --------------------------------------------------------------------------- Program

def hold_descriptors():
    """Let no socket become 0, 1 or 2 where that is closed; reading or writing it still fails."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == 0 else os.O_RDONLY)


def settle_host(args, config):
    """Set args.here to this machine's host label, and args.host too, unless -h did."""
    args.here, where = s3.host_label(config)
    if args.host is None:
        try:
            args.host = args.here = config.get('host') or parse_text(args.here)
            check_labels(Labels(args.here, None, None, None, None))
        except UsageError as error:
            raise s3.ConfigError('%s: %s; -h NAME, or `host NAME` in the configuration, says '
                                 'another' % (where, error))


def open_bucket(args):
    def report(kind, text):
        warning = kind in ('warning', 'doubt')
        if kind == 'doubt':
            Stopped.outcome = ''
        if warning or args.verbose:
            say(('warning: ' if warning else '') + text)

    config = s3.load_config(args.config, warn=lambda text: args.quiet or report('warning', text))
    settle_host(args, config)
    for name in ('limit_rate', 'jobs', 'storage_class', 'patience'):
        if getattr(args, name) is not None:
            config[name] = getattr(args, name)
    if args.name not in ('dump', 'restore', 'verify'):      # no monitoring hangs for days
        config['patience'] = min(s3.PATIENCE, config.get('patience', s3.PATIENCE))
    return s3.Bucket(config, report=report, signals=SIGNALS)


def run(argv):
    args = argparse.Namespace(name='s3dump', verbose=False)
    try:
        if not argv:
            say('no command: see s3dump.py --help; the first steps are\n' + (
                __doc__ or '').partition('\n\n')[2].partition('\n\n')[0])
            return 2
        args = parse(argv)
        if args.text:
            print_out(args.text.rstrip())
            return 0
        with open_bucket(args) as bucket, contextlib.closing(
                Status(bucket, args.quiet)) as args.status:
            catch_rate_signals(bucket.limit)
            set_at(bucket, args)
            return COMMANDS[args.name][0](bucket, args) or 0
    except BrokenPipeError:         # of standard output: s3 has wrapped those of sockets
        return 128 + signal.SIGPIPE
    except Exception as error:
        status, text = failure(args, error)
        if getattr(error, 'status', 0) in (400, 403, 404):      # after others it may still appear
            text += Stopped.outcome * (Stopped.outcome not in text)
        if '--nagios' in itertools.takewhile('--'.__ne__, argv):
            with contextlib.suppress(OSError):
                print_out('S3DUMP UNKNOWN: ' + text.replace('|', r'\x7c'))
            return 3
        say(text)
        if not status and args.verbose:
            raise
        return status or 1


def failure(args, error):
    """Return the exit status, 0 if the mistake is in this program, and what it says."""
    if isinstance(error, (UsageError, s3.ConfigError)):
        return 2, '%s%s' % (error, '; see s3dump.py --help' * isinstance(error, UsageError))
    if isinstance(error, s3.ArchivedError):
        return 3, '%s: %s%s' % (args.name, error, '' if args.thaw else
                                '; `restore --thaw DAYS` makes it readable')
    if isinstance(error, (s3.Error, OSError)):
        return 1, '%s: %s' % (args.name or 'output', getattr(error, 'strerror', None) or error)
    # the text of others may hold anything, a secret too
    if isinstance(error, ImportError):
        return 1, '%s: out of memory, or this Python is not complete: %s' % (
            args.name, s3.printable(str(error)))
    with contextlib.suppress(MemoryError):      # without memory Python raises errors of any kind
        if not isinstance(error, (MemoryError, SystemError)) and bytearray(4 << 20):
            place = error.__traceback__
            while place.tb_next:
                place = place.tb_next
            return 0, 'internal error, please report it: %s in line %d of %s' % (
                type(error).__name__, place.tb_lineno,
                os.path.basename(place.tb_frame.f_code.co_filename))
    return 1, '%s: out of memory; fewer jobs (-j) or a smaller part_size need less' % args.name


def main():
    hold_descriptors()
    sys.unraisablehook = callable   # says nothing; a function of ours would need memory, too
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)       # ignored, it would hide how PROGRAM ended
    ignore_signals((signal.SIGUSR1, signal.SIGUSR2))    # until there is a rate
    try:
        SIGNALS.catch()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # our parent may have blocked them
        status = run(sys.argv[1:])
        ignore_signals()
        return status
    except Stopped as stopped:
        warnings.simplefilter('ignore')     # of a socket that was just being connected
        say('ended by signal %d%s' % (stopped.args[0], stopped.outcome))
        return 128 + stopped.args[0]


if __name__ == '__main__':
    os._exit(main())    # nothing else is left to be written, and Python's end takes a while

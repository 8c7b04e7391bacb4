"""What a tool says to the kernel over netlink, and what the kernel answers, as strace saw it.

A capture is a dict:
  name      what the case is about
  command   the command line, and input, what it read from standard input, if anything
  sent      hex of each netlink message, in the order of sending
  received  hex of each datagram (one or more messages) that came back
  status    the exit status; 0 unless the name ends in ": ERRNO", the error that the kernel then answered
  text      what the tool printed, standard error included

Sequence numbers are renumbered from 1 in the order of their first use and port numbers are zero: they come from the
clock and the process's id. Times inside of dumps are those of the day.

needs: strace
"""
import errno
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import tempfile

HEADER = struct.Struct('=IHHII')
NLMSG_ERROR = 2
SEQUENCE_AND_PORT = slice(8, 16)


def messages(datagram):
    """The netlink messages in a datagram, each without the padding that follows it."""
    at = 0
    while at < len(datagram):
        length = HEADER.unpack_from(datagram, at)[0]
        if not HEADER.size <= length <= len(datagram) - at:
            raise ValueError(f'a message of {length} bytes at {at} of {len(datagram)}')
        yield datagram[at:at + length]
        at += (length + 3) & ~3


def system_calls(trace):
    """Yields (name, file descriptor, arguments, result, bytes moved) of each call in strace's output."""
    call = None
    for line in trace.splitlines():
        dumped = re.match(r' \| [0-9a-f]{5,}  ((?:[0-9a-f]{2} {1,2})+)', line)
        if dumped and call:
            call[4].extend(bytes.fromhex(dumped[1]))
            continue
        started = re.match(r'(\w+)\((\w+)(.*)\) += (-?\d+)', line)
        if started:
            if call:
                yield call
            call = (started[1], started[2], started[3], int(started[4]), bytearray())
    if call:
        yield call


def netlink_traffic(trace, protocol):
    """The datagrams sent to and received from sockets of one netlink protocol, as ('sent' or 'received', bytes)."""
    sockets = set()
    for name, descriptor, arguments, result, moved in system_calls(trace):
        if name == 'socket' and descriptor == 'AF_NETLINK' and arguments.endswith(protocol):
            sockets.add(str(result))
        elif descriptor not in sockets or result <= 0 or 'MSG_PEEK' in arguments:
            continue
        elif len(moved) != result:
            raise ValueError(f'{name} moved {result} bytes, strace showed {len(moved)}')
        else:
            yield ('sent' if name.startswith('send') else 'received'), bytes(moved)


def normalize(traffic):
    """Renumbers the sequence numbers, in order of first use, and zeroes the port numbers."""
    renumbered = {}
    for direction, datagram in traffic:
        changed = bytearray()
        for message in messages(datagram):
            header = HEADER.unpack_from(message)
            sequence = renumbered.setdefault(header[3], len(renumbered) + 1)
            padded = bytearray(message + bytes(-len(message) % 4))
            padded[SEQUENCE_AND_PORT] = struct.pack('=II', sequence, 0)
            if header[1] == NLMSG_ERROR:  # it repeats the request's header after the error
                padded[HEADER.size + 12:HEADER.size + 20] = struct.pack('=II', sequence, 0)
            changed += padded
        yield direction, bytes(changed)


def refusals(traffic):
    """The names of the errors that the kernel answered."""
    answers = (message for direction, datagram in traffic if direction == 'received' for message in messages(datagram))
    errors = (struct.unpack_from('=i', a, HEADER.size)[0] for a in answers if HEADER.unpack_from(a)[1] == NLMSG_ERROR)
    return {errno.errorcode[-e] for e in errors if e}


def run(name, command, protocol, stdin=None, keep=list):
    """Runs a command (a list of words) under strace; keep picks the traffic that goes into the capture."""
    with tempfile.NamedTemporaryFile('r') as trace:
        calls = 'socket,sendto,sendmsg,recvfrom,recvmsg'
        dump = ','.join(map(str, range(3, 10)))
        strace = ['strace', '-o', trace.name, '-e', f'trace={calls}', '-e', f'write={dump}', '-e', f'read={dump}']
        ran = subprocess.run(strace + command, input=stdin, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             env={'PATH': os.environ['PATH'], 'TZ': 'UTC', 'LC_ALL': 'C'})
        traffic = list(normalize(keep(list(netlink_traffic(trace.read(), protocol)))))
    expected = set(re.findall(r': (E[A-Z]+)$', name))
    if refusals(traffic) != expected or bool(ran.returncode) != bool(expected):
        raise RuntimeError(f'{name}: status {ran.returncode}, {refusals(traffic)}: {ran.stdout}')
    capture = {'name': name, 'command': ' '.join(f"'{w}'" if re.search(r'[^\w./:=@,-]', w) else w for w in command)}
    if stdin is not None:
        capture['input'] = stdin
    capture['sent'] = [m.hex() for d, bytes_ in traffic if d == 'sent' for m in messages(bytes_)]
    capture['received'] = [bytes_.hex() for d, bytes_ in traffic if d == 'received']
    capture['status'] = ran.returncode
    capture['text'] = ran.stdout
    return capture


def digest(capture):
    """A capture too long to keep: without input and text, and length and SHA-256 in the place of each message sent."""
    whole = [bytes.fromhex(m) for m in capture.pop('sent')]
    capture['sentDigests'] = [{'length': len(m), 'sha256': hashlib.sha256(m).hexdigest()} for m in whole]
    del capture['input'], capture['text']
    return capture


def write(captures):
    """Writes the captures to standard output as JSON, one on each line."""
    lines = (json.dumps(c) for c in captures)
    sys.stdout.write('[\n' + ',\n'.join(lines) + '\n]\n')

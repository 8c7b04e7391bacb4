#include <cerrno>

#include "netlink/exchange.h"
#include "netlink/verdict.h"

namespace xfrmesh {

Transacted transact(Socket& socket, Bytes bytes, std::uint32_t firstSequence,
                    const std::vector<std::uint32_t>& recordOf, const Control& control,
                    const std::function<void(std::uint32_t record, const Message&)>& echo) {
  Transacted outcome;
  const auto fail = [&](int error) {
    outcome.ending = Ending::kFailed;
    outcome.error = error;
  };
  outcome.ending = control.check();
  if (outcome.ending != Ending::kComplete || recordOf.empty()) return outcome;
  if (bytes.size() > socket.sendLimit()) {
    fail(EMSGSIZE);
    return outcome;
  }
  const int error = socket.send(bytes);
  if (error != 0) {
    fail(error);
    return outcome;
  }
  outcome.sends = 1;
  Sentences sentences(outcome.messages);
  const std::uint32_t last = firstSequence + static_cast<std::uint32_t>(recordOf.size());
  bool lost = false;
  bool acknowledged = false;
  bool refused = false;
  bool echoed = false;
  // The send has run the transaction, so all its answers are there: a refusal may follow an ack, so take them all.
  for (;;) {
    const Socket::Received received =
        socket.receive(lost || acknowledged || refused || echoed ? Clock::time_point{} : control.deadline);
    if (received == Socket::Received::kEmpty) break;
    if (received == Socket::Received::kLost) {
      lost = true;
      continue;
    }
    if (received == Socket::Received::kError) {
      fail(socket.error());
      return outcome;
    }
    Bytes rest = socket.data();
    Message message{};
    while (takeMessage(rest, message)) {
      const std::uint32_t at = message.header.nlmsg_seq - firstSequence;
      if (at > recordOf.size() + 1) continue;
      if (message.header.nlmsg_type != NLMSG_ERROR) {
        if (at == 0 || at > recordOf.size()) continue;
        echoed = true;
        echo(recordOf[at - 1], message);
        continue;
      }
      const Verdict verdict = verdictOf(message);
      if (verdict.error == 0) {
        acknowledged = acknowledged || message.header.nlmsg_seq == last;
        continue;
      }
      refused = true;
      // What concerns the transaction as a whole is answered under the begin message's number.
      if (at == 0 || at > recordOf.size()) {
        fail(verdict.error);
        if (!verdict.message.empty()) outcome.messages.push_back(verdict.message);
      } else {
        outcome.failures.push_back({.index = recordOf[at - 1],
                                    .error = static_cast<std::uint32_t>(verdict.error),
                                    .message = sentences.add(verdict.message)});
        outcome.places.push_back({.message = at - 1, .offset = verdict.offset});
      }
    }
  }
  // The kernel tells of what it made only once all is made: then it does not matter what else was lost. An ack alone
  // may be followed by a refusal.
  outcome.echoLost = lost;
  const bool done = echoed || (acknowledged && !lost);
  if (outcome.ending == Ending::kComplete && outcome.failures.empty() && !done) {
    fail(lost ? ENOBUFS : ETIMEDOUT);
  }
  if (outcome.ending == Ending::kComplete && outcome.failures.empty()) {
    outcome.sent = recordOf.back() + 1;
  }
  return outcome;
}

}  // namespace xfrmesh

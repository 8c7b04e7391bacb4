#include <cerrno>

#include "netlink/exchange.h"
#include "netlink/verdict.h"

namespace xfrmesh {

Outcome transact(Socket& socket, Bytes bytes, std::uint32_t firstSequence, const std::vector<std::uint32_t>& recordOf,
                 const Control& control) {
  Outcome outcome;
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
  // The send has run the transaction, so all its answers are there: a refusal may follow an ack, so take them all.
  for (;;) {
    const Socket::Received received =
        socket.receive(lost || acknowledged || refused ? Clock::time_point{} : control.deadline);
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
      if (message.header.nlmsg_type != NLMSG_ERROR || at > recordOf.size() + 1) continue;
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
      }
    }
  }
  if (outcome.ending == Ending::kComplete && outcome.failures.empty() && (lost || !acknowledged)) {
    fail(lost ? ENOBUFS : ETIMEDOUT);
  }
  if (outcome.ending == Ending::kComplete && outcome.failures.empty()) {
    outcome.sent = recordOf.back() + 1;
  }
  return outcome;
}

}  // namespace xfrmesh

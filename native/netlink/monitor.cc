#include "netlink/monitor.h"

#include <unistd.h>

#include <cerrno>

namespace xfrmesh {
namespace {

// Datagrams taken at a time, an event each, but after an overrun.
constexpr int kMost = 256;

}  // namespace

int join(Socket& socket, const std::vector<std::uint32_t>& groups) {
  for (const std::uint32_t group : groups) {
    const int error = socket.join(group);
    if (error != 0) return error;
  }
  return 0;
}

Heard hear(Socket& socket, const Control& control, const std::function<void(const Message&)>& receive,
           const std::function<void()>& lost) {
  bool overrun = false;
  // The kernel says that the buffer overran before it gives what is in it, and takes nothing more into it until it is
  // empty (NETLINK_S_CONGESTED): what is lost is lost after that, and nothing is from then on.
  for (int taken = 0; taken < kMost || overrun;) {
    const Ending ending = control.check();
    if (ending != Ending::kComplete) return {.ending = taken > 0 ? Ending::kComplete : ending};
    switch (socket.receive({})) {
      case Socket::Received::kLost:
        overrun = true;
        continue;
      case Socket::Received::kError:
        return {.ending = Ending::kFailed, .error = socket.error()};
      case Socket::Received::kEmpty: {
        if (overrun) lost();
        if (overrun || taken > 0) return {};
        const int error = socket.wait(control.deadline, control.wake);
        if (error != 0) return {.ending = Ending::kFailed, .error = error};
        continue;
      }
      case Socket::Received::kData:
        break;
    }
    Bytes rest = socket.data();
    Message message{};
    while (takeMessage(rest, message)) receive(message);
    taken++;
  }
  return {};
}

}  // namespace xfrmesh

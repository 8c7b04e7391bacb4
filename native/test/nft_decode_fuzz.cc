// Whatever the kernel answers, a handle is read from it or not, and what was refused within its bounds.
#include <cstdlib>

#include "netlink/verdict.h"
#include "nft/echo.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace xfrmesh;
  Bytes rest = std::as_bytes(std::span(data, size));
  Message message{};
  while (takeMessage(rest, message)) {
    const std::uint64_t handle = handleOf(message);
    // None without room for one: the headers, and an attribute of eight bytes.
    if (handle != 0 && message.payload.size() < 16) std::abort();
    if (verdictOf(message).message.size() > message.payload.size()) std::abort();
  }
  return 0;
}

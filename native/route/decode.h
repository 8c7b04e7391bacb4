// From the kernel's messages to records of neighbours: what a dump or an answer shows.
#pragma once

#include <vector>

#include "netlink/message.h"
#include "route/record.h"

namespace xfrmesh {

class NeighbourDecoder {
 public:
  // Only entries of that link; 0: of all.
  explicit NeighbourDecoder(std::int32_t interfaceIndex = 0) : interfaceIndex_(interfaceIndex) {}

  // Appends the entry of a message (RTM_NEWNEIGH), unless it is another link's, of no family of ours, or of a bridge's
  // own FDB, which is not the link's. Two records are equal byte by byte if and only if they mean the same. False if
  // the message is malformed. Other messages are passed over.
  bool decode(const Message& message);

  [[nodiscard]] const std::vector<std::byte>& records() const { return records_; }
  void clear() { records_.clear(); }

 private:
  std::int32_t interfaceIndex_;
  std::vector<std::byte> records_;
};

}  // namespace xfrmesh

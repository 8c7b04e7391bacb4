// Records of neighbours as TypeScript writes them, for tests.
#pragma once

#include <linux/neighbour.h>
#include <sys/socket.h>

#include <vector>

#include "netlink/message.h"
#include "route/record.h"

namespace xfrmesh::test {

// The FDB entry 02:00:00:xx:yy:zz to 192.0.2.k, by its number.
inline NeighbourRecord fdbEntry(NeighbourOperation operation, std::int32_t link, std::uint32_t number,
                                std::uint8_t k = 1) {
  NeighbourRecord record{};
  record.length = kNeighbourBytes;
  record.operation = operation;
  record.family = AF_BRIDGE;
  record.destinationFamily = AF_INET;
  record.flags = NTF_SELF;
  record.state = NUD_PERMANENT;
  record.given = kGivenLinkAddress;
  record.linkAddress[0] = 2;
  record.linkAddress[3] = static_cast<std::uint8_t>(number >> 16);
  record.linkAddress[4] = static_cast<std::uint8_t>(number >> 8);
  record.linkAddress[5] = static_cast<std::uint8_t>(number);
  record.interfaceIndex = link;
  record.destination[0] = 192;
  record.destination[2] = 2;
  record.destination[3] = k;
  return record;
}

// The neighbour 10.x.y.z at 02:00:00:xx:yy:zz, by its number.
inline NeighbourRecord neighbour(NeighbourOperation operation, std::int32_t link, std::uint32_t number) {
  NeighbourRecord record = fdbEntry(operation, link, number);
  record.family = record.destinationFamily = AF_INET;
  record.flags = 0;
  record.destination[0] = 10;
  for (int i = 1; i < 4; i++) record.destination[i] = record.linkAddress[i + 2];
  return record;
}

class NeighbourRecords {
 public:
  NeighbourRecords& add(const NeighbourRecord& record) {
    const Bytes bytes = bytesOf(record);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace xfrmesh::test

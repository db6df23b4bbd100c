// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// Claims to be a Safe and is none.
contract FakeSafe {
    event SafeSetup(
        address indexed initiator,
        address[] owners,
        uint256 threshold,
        address initializer,
        address fallbackHandler
    );

    constructor(address[] memory owners, uint256 threshold) {
        emit SafeSetup(msg.sender, owners, threshold, address(0), address(0));
    }

    function getOwners() external pure returns (address[] memory owners) {}
}

/// Emits the logs of a Safe deployment without one: what anybody can do to anybody.
contract FakeSafeFactory {
    event ProxyCreation(address indexed proxy, address singleton);

    function create(address[] calldata owners, address singleton) external returns (address) {
        FakeSafe fake = new FakeSafe(owners, 1);
        emit ProxyCreation(address(fake), singleton);
        return address(fake);
    }
}

//! Changes to a network: not supported on this system.

use std::convert::Infallible;
use std::net::IpAddr;

use ipnet::IpNet;

use super::netns::Namespace;
use crate::model::{IfName, Rule};
use crate::sys::{Error, LinkSpec, NewAddress, NewRoute};

/// A connection for changes; there is none on this system.
pub struct Network {
    never: Infallible,
}

impl Network {
    /// Always refuses.
    ///
    /// # Errors
    /// Always.
    pub fn here() -> Result<Network, Error> {
        Err(Error::Unsupported { what: "a lab" })
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn add_veth(&mut self, _here: &LinkSpec, _there: &LinkSpec, _other: &Namespace) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn add_bridge(&mut self, _link: &LinkSpec) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn add_vrf(&mut self, _link: &LinkSpec, _table: u32) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn add_macvlan(
        &mut self,
        _link: &LinkSpec,
        _parent: &IfName,
        _other: Option<&Namespace>,
    ) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn delete_link(&mut self, _name: &IfName) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn set_up(&mut self, _name: &IfName, _up: bool) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn set_master(&mut self, _name: &IfName, _master: Option<&IfName>) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn rename(&mut self, _name: &IfName, _to: &IfName) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn add_altname(&mut self, _name: &IfName, _altname: &IfName) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn settle(&mut self, _name: &IfName) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn add_address(&mut self, _name: &IfName, _new: &NewAddress) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn delete_address(&mut self, _name: &IfName, _net: IpNet) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn add_route(&mut self, _route: &NewRoute) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn delete_route(&mut self, _route: &NewRoute) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn add_rule(&mut self, _rule: &Rule) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn delete_rule(&mut self, _rule: &Rule) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn add_neighbour(&mut self, _name: &IfName, _address: IpAddr, _mac: [u8; 6]) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn forget_neighbours(&mut self) -> Result<(), Error> {
        match self.never {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn wait_for_addresses(&mut self, _most: std::time::Duration) -> Result<bool, Error> {
        match self.never {}
    }
}
